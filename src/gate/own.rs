//! What the gate answers itself: the credits of a token for its holder, and in dialect iex the account endpoints of the
//! original service (`clients.md`). It costs nothing.
//!
//! Owns which paths these are and how they stand to the routes of the file. The account endpoints of dialect iex come
//! first: clients rely on them, also where a route such as `/{version}/**` is for everything. `/v1/credits` is there only
//! where no route of the file serves it. Either is said in the log at the start, so nothing is hidden silently.
//! Each path is a route like others, so the checks of a request are the same up to its charge. What is told is
//! `own/account`'s and `own/credits`'s; values and a token in a body are read by `own/form`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::line::Line;
use super::meter::Meter;
use super::reply::Dialect;
use crate::policy::route::{Access, Methods, PathTemplate, Route, RouteTable};
use crate::policy::signature::{DEFAULT_MAX_SIGNED_BODY, SignatureBody};
use crate::policy::target::Target;
use crate::policy::{Credits, Denial, Operation, Policy, Price, TokenKind};

mod account;
mod credits;
mod form;

pub(super) use form::Form;

/// The place of such a path in the table of routes: none, so it is counted with what has no route.
const NO_PLACE: usize = usize::MAX;

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// What is left of a token's credits.
    Credits,
    /// The account.
    Metadata,
    /// What the account has used.
    Usage,
    /// The same of one kind, which the path names.
    UsageOfKind,
    /// Lifts the quota, or puts it back.
    PayAsYouGo,
    /// Sets the circuit breaker.
    MessageBudget,
    /// Whether the service is up.
    Status,
}

/// The account endpoints of dialect iex.
const ACCOUNT: [(&str, Endpoint); 6] = [
    ("/{version}/account/metadata", Endpoint::Metadata),
    ("/{version}/account/usage", Endpoint::Usage),
    ("/{version}/account/usage/{kind}", Endpoint::UsageOfKind),
    ("/{version}/account/payasyougo", Endpoint::PayAsYouGo),
    ("/{version}/account/messagebudget", Endpoint::MessageBudget),
    ("/{version}/status", Endpoint::Status),
];

const CREDITS: [(&str, Endpoint); 1] = [("/v1/credits", Endpoint::Credits)];

impl Endpoint {
    fn methods(self) -> Methods {
        match self {
            Self::PayAsYouGo | Self::MessageBudget => Methods::new(vec![(Method::POST, Operation::Write)]),
            _ => Methods::new(vec![(Method::GET, Operation::Read), (Method::HEAD, Operation::Read)]),
        }
    }

    /// Whether anybody may ask.
    pub(super) fn is_open(self) -> bool {
        self == Self::Status
    }

    /// Whether a publishable token may not ask.
    pub(super) fn check_kind(self, policy: &Policy) -> Result<(), Denial> {
        let needs_secret = !matches!(self, Self::Credits | Self::Status);
        if needs_secret && policy.kind != TokenKind::Secret {
            return Err(Denial::SecretTokenRequired);
        }
        Ok(())
    }
}

/// Paths with what is asked there.
#[derive(Debug)]
struct Paths {
    table: RouteTable,
    endpoints: Vec<Endpoint>,
}

impl Paths {
    fn new(list: &[(&str, Endpoint)]) -> Self {
        let parsed = |(path, endpoint): &(&str, Endpoint)| Some((PathTemplate::parse(path).ok()?, *endpoint));
        let (routes, endpoints) =
            list.iter().filter_map(parsed).map(|(path, endpoint)| (route(path, endpoint), endpoint)).unzip();
        Self { table: RouteTable::new(routes), endpoints }
    }

    fn find(&self, target: &Target) -> Option<(&Arc<Route>, Endpoint)> {
        let (at, route) = self.table.find(target).ok()?;
        Some((route, *self.endpoints.get(at)?))
    }
}

/// A token needs no leave for data here, and is charged nothing.
fn route(path: PathTemplate, endpoint: Endpoint) -> Route {
    Route {
        path,
        upstream: String::new(),
        access: Access::Dataset,
        dataset: None,
        batch_separator_param: None,
        methods: endpoint.methods(),
        price: Price::flat(Credits(0)),
        items: None,
        signed: false,
        signature_body: SignatureBody::default(),
        max_signed_body: DEFAULT_MAX_SIGNED_BODY,
        keep_encoded_slash: false,
        rewrite: None,
    }
}

/// The gate's own paths.
#[derive(Debug)]
pub(super) struct Own {
    dialect: Dialect,
    account: Paths,
    credits: Paths,
}

impl Own {
    /// The paths of a dialect. Where one of them and a route of the file are for the same path, the log says who answers.
    pub(super) fn new(dialect: Dialect, routes: &RouteTable) -> Self {
        let own = Self { dialect, account: Paths::new(&ACCOUNT), credits: Paths::new(&CREDITS) };
        for path in ["/v1/account/metadata", "/v1/account/usage", "/v1/status"] {
            if let (true, Some(route)) = (dialect == Dialect::Iex, route_of(routes, path)) {
                tracing::warn!(
                    path,
                    route,
                    "in dialect iex the gate answers this path itself; the route is not asked"
                );
            }
        }
        if let Some(route) = route_of(routes, "/v1/credits") {
            tracing::warn!(
                route,
                "this route serves /v1/credits, so the gate does not tell holders of tokens their credits"
            );
        }
        own
    }

    /// The route of a target, its place among the routes of the file, and what the gate answers there itself.
    pub(super) fn find<'g>(
        &'g self,
        routes: &'g RouteTable,
        target: &Target,
    ) -> Result<(usize, &'g Arc<Route>, Option<Endpoint>), Denial> {
        if let Some((route, endpoint)) = self.find_account(target) {
            return Ok((NO_PLACE, route, Some(endpoint)));
        }
        match routes.find(target) {
            Ok((at, route)) => Ok((at, route, None)),
            Err(Denial::NoRoute) => {
                let (route, endpoint) = self.credits.find(target).ok_or(Denial::NoRoute)?;
                Ok((NO_PLACE, route, Some(endpoint)))
            }
            Err(denial) => Err(denial),
        }
    }

    fn find_account(&self, target: &Target) -> Option<(&Arc<Route>, Endpoint)> {
        let path = target.path();
        let likely =
            self.dialect == Dialect::Iex && (path.contains("/account/") || path.ends_with("/status"));
        likely.then(|| self.account.find(target)).flatten()
    }
}

/// The route of the file that serves a path.
fn route_of<'r>(routes: &'r RouteTable, path: &str) -> Option<&'r str> {
    let target = Target::parse(path.as_bytes(), None).ok()?;
    routes.find(&target).ok().map(|(_, route)| route.path.as_str())
}

/// What an answer is made of.
pub(super) struct Desk<'g> {
    pub(super) line: &'g Line,
    pub(super) meter: &'g Meter,
    /// How long a request waits for the store.
    pub(super) patience: Duration,
    /// From where it is asked.
    pub(super) client: Option<IpAddr>,
}

impl Desk<'_> {
    /// Answers what a judged request asks for. The token's throttle counts: each answer costs the store some reads.
    pub(super) async fn answer(
        &self,
        endpoint: Endpoint,
        target: &Target,
        form: Option<&Form>,
        policy: &Policy,
    ) -> Result<Value, Denial> {
        endpoint.check_kind(policy)?;
        self.meter.pace(policy).await?;
        match endpoint {
            Endpoint::Credits => self.credits(policy).await,
            Endpoint::Metadata => self.metadata(&policy.account).await,
            Endpoint::Usage => {
                let messages = self.messages(&policy.account).await?;
                Ok(json!({"messages": messages, "rules": []}))
            }
            Endpoint::UsageOfKind => match target.segments().last() {
                Some("messages" | "credits") => self.messages(&policy.account).await,
                // Nothing of these kinds is sold here.
                Some("rules" | "rule-records" | "alerts" | "alert-records") => Ok(json!([])),
                _ => Err(Denial::NoRoute),
            },
            Endpoint::PayAsYouGo => {
                let allow = form::flag(form, target, "allow")?.ok_or(Denial::InvalidValues)?;
                self.pay_as_you_go(policy, allow).await
            }
            Endpoint::MessageBudget => {
                if let Some(total) = form::number(form, target, "totalMessages")? {
                    return self.message_budget(policy, total).await;
                }
                // Both public clients ask here for pay-as-you-go.
                let allow = form::flag(form, target, "allow")?.ok_or(Denial::InvalidValues)?;
                self.pay_as_you_go(policy, allow).await
            }
            Endpoint::Status => Ok(status()),
        }
    }
}

/// The service is up, or this could not be told.
pub(super) fn status() -> Value {
    let now = jiff::Timestamp::now().as_millisecond();
    json!({"status": "up", "version": env!("CARGO_PKG_VERSION"), "time": now})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::parse(path.as_bytes(), None).unwrap()
    }

    fn routes(path: &str) -> RouteTable {
        RouteTable::new(vec![route(PathTemplate::parse(path).unwrap(), Endpoint::Credits)])
    }

    #[test]
    fn every_path_of_its_own_is_one() {
        for (list, paths) in [(&ACCOUNT[..], Paths::new(&ACCOUNT)), (&CREDITS[..], Paths::new(&CREDITS))] {
            let endpoints: Vec<_> = list.iter().map(|(_, endpoint)| *endpoint).collect();
            assert_eq!((paths.endpoints, paths.table.iter().count()), (endpoints, list.len()));
        }
    }

    #[test]
    fn account_endpoints_come_first_and_credits_last() {
        let none = RouteTable::default();
        let all = routes("/{version}/**");
        // (path, dialect, routes, what the gate answers itself)
        let table = [
            ("/v1/credits", Dialect::Standard, &none, Some(Endpoint::Credits)),
            ("/v1/credits", Dialect::Standard, &all, None),
            ("/v2/credits", Dialect::Iex, &none, None),
            ("/beta/account/metadata", Dialect::Iex, &all, Some(Endpoint::Metadata)),
            ("/beta/account/metadata", Dialect::Standard, &all, None),
            ("/v1/account/usage/messages", Dialect::Iex, &none, Some(Endpoint::UsageOfKind)),
            ("/v1/account/usage", Dialect::Iex, &none, Some(Endpoint::Usage)),
            ("/stable/status", Dialect::Iex, &all, Some(Endpoint::Status)),
            ("/stable/status", Dialect::Standard, &none, None),
            ("/v1/account/other", Dialect::Iex, &all, None),
        ];
        for (path, dialect, routes, expected) in table {
            let own = Own::new(dialect, routes);
            let found = own.find(routes, &target(path)).map(|(_, _, endpoint)| endpoint);
            assert_eq!(found.unwrap_or_default(), expected, "{path} {dialect:?}");
        }
    }
}
