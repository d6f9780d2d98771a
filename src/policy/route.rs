//! Routes: which path serves which data, by which methods, at what cost.
//!
//! Owns path templates, data set templates and batches (`interface.md`, "proxy.yaml"; `policy.md`, "Data access").
//! Pure, and shared by the gate, its forward-auth and `explain`; where a route leads is the proxy's business, so an
//! upstream is only a name here.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::cost::{Pool, Price};
use super::dataset::{DatasetId, Operation};
use super::denial::Denial;
use super::query;
use super::signature::SignatureBody;
use super::target::{BadTarget, Target, decode};

mod items;
mod rewrite;
mod template;

pub use items::Items;
pub use rewrite::{BadRewrite, HeaderChanges, NewPath, Rewrite};
pub use template::{BadTemplate, DatasetTemplate, PathTemplate};

/// Which leave a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The token's `core_access`.
    Core,
    /// The token's `premium_access`.
    Premium,
    /// A grant for each data set of the request.
    Dataset,
}

impl Access {
    /// The name in `proxy.yaml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Premium => "premium",
            Self::Dataset => "dataset",
        }
    }

    /// Which pool such a route draws on.
    pub fn pool(self) -> Pool {
        match self {
            Self::Core | Self::Dataset => Pool::Core,
            Self::Premium => Pool::Premium,
        }
    }
}

/// The methods a route serves, and what each does to its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods(Vec<(Method, Operation)>);

impl Default for Methods {
    /// `GET` and `HEAD` read; `POST`, `PUT`, `PATCH` write; `DELETE` deletes.
    fn default() -> Self {
        let of = |method: Method| Self::usual(&method).map(|operation| (method, operation));
        let all = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        Self(all.into_iter().filter_map(of).collect())
    }
}

impl Methods {
    /// Exactly these methods.
    pub fn new(methods: Vec<(Method, Operation)>) -> Self {
        Self(methods)
    }

    /// What a method does where the route does not say otherwise.
    pub fn usual(method: &Method) -> Option<Operation> {
        match *method {
            Method::GET | Method::HEAD => Some(Operation::Read),
            Method::POST | Method::PUT | Method::PATCH => Some(Operation::Write),
            Method::DELETE => Some(Operation::Delete),
            _ => None,
        }
    }

    /// What `method` does here; `None`: it is not served.
    pub fn operation(&self, method: &Method) -> Option<Operation> {
        self.0.iter().find(|(served, _)| served == method).map(|(_, operation)| *operation)
    }

    /// The methods as the `Allow` header lists them.
    pub fn allow(&self) -> String {
        self.0.iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// One route of `proxy.yaml`.
#[derive(Debug, Clone)]
pub struct Route {
    /// The paths it serves.
    pub path: PathTemplate,
    /// The name of the upstream it leads to.
    pub upstream: String,
    /// Which leave it asks for.
    pub access: Access,
    /// Which data sets a request is about; always there for [`Access::Dataset`].
    pub dataset: Option<DatasetTemplate>,
    /// The query parameter in which a request may name its own separator of a batch.
    pub batch_separator_param: Option<String>,
    /// The methods it serves.
    pub methods: Methods,
    /// What a request costs.
    pub price: Price,
    /// Where its items stand, if each of them costs.
    pub items: Option<Items>,
    /// Whether each request needs a signature.
    pub signed: bool,
    /// What a signature must say of the body, where one is asked for by the route or by the token.
    pub signature_body: SignatureBody,
    /// Bytes of such a body that are held back at most.
    pub max_signed_body: u64,
    /// Whether `%2F` may stand in the part matched by the final `/**`.
    pub keep_encoded_slash: bool,
    /// What is changed on the way to the upstream and back, after all was judged.
    pub rewrite: Option<Arc<Rewrite>>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// What a route makes of a request: everything that policy needs to know of it.
#[derive(Debug, Clone)]
pub struct Errand<'r> {
    /// The route.
    pub route: &'r Route,
    /// Each data set asked for, at least one where the route has a template.
    pub datasets: Vec<DatasetId>,
    /// What is to be done with them.
    pub operation: Operation,
    /// How many items it names, for the price.
    pub items: u64,
}

/// All routes, in the order of the file: the first that matches decides.
#[derive(Debug, Clone, Default)]
pub struct RouteTable(Vec<Arc<Route>>);

impl RouteTable {
    /// A table of these routes.
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes.into_iter().map(Arc::new).collect())
    }

    /// The routes in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// What could be granted of the data sets that these routes name: `WORKSPACE/DATASET`, or `WORKSPACE/*` where the request
    /// says which. A route that takes any workspace names none.
    pub fn grantable(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.iter().filter_map(|route| route.dataset.as_ref()?.grantable()).collect();
        found.sort();
        found.dedup();
        found
    }

    /// The first route that serves the path, whatever the method, and its place in the table.
    pub fn find(&self, target: &Target) -> Result<(usize, &Arc<Route>), Denial> {
        let segments: Vec<&str> = target.segments().collect();
        let mut routes = self.0.iter().enumerate();
        let (at, route) = routes.find(|(_, route)| route.path.matches(&segments)).ok_or(Denial::NoRoute)?;
        let tail = if route.keep_encoded_slash { route.path.fixed_len() } else { usize::MAX };
        let escaped = target.path().contains('%');
        if escaped && segments.iter().take(tail).any(|segment| segment.contains("%2F")) {
            return Err(Denial::BadTarget(BadTarget::EncodedSlash));
        }
        Ok((at, route))
    }
}

impl Route {
    /// What a request by `method` for `target` is about.
    pub fn errand(&self, target: &Target, method: &Method) -> Result<Errand<'_>, Denial> {
        let operation = self
            .methods
            .operation(method)
            .ok_or_else(|| Denial::MethodNotAllowed { allow: self.methods.allow() })?;
        let datasets = self.datasets(target).map_err(Denial::BadTarget)?;
        let items = self.items(target).map_err(Denial::BadTarget)?;
        Ok(Errand { route: self, datasets, operation, items })
    }

    /// Each data set of the request. A value with a comma, or with the separator that the request itself names,
    /// is a batch; each member counts, so no member escapes by a separator the upstream reads differently.
    fn datasets(&self, target: &Target) -> Result<Vec<DatasetId>, BadTarget> {
        let Some(template) = &self.dataset else { return Ok(Vec::new()) };
        let separator = self.separator(target)?;
        match one_dataset(template, target, separator) {
            Some(one) => Ok(vec![one]),
            None => batch(template, target, separator),
        }
    }

    fn separator(&self, target: &Target) -> Result<Option<char>, BadTarget> {
        let Some(param) = &self.batch_separator_param else { return Ok(None) };
        let values = query::values(target.query(), param);
        let value = match values.as_slice() {
            [] => return Ok(None),
            [value] => std::str::from_utf8(value).map_err(|_| BadTarget::BatchSeparator)?,
            _ => return Err(BadTarget::BatchSeparator),
        };
        let mut chars = value.chars();
        match (chars.next(), chars.next()) {
            (Some(one @ ('|' | ';' | ':' | ',' | '~' | '!' | '$' | '*' | ' ')), None) => Ok(Some(one)),
            _ => Err(BadTarget::BatchSeparator),
        }
    }
}

/// Each data set of a request, whatever it holds.
fn batch(
    template: &DatasetTemplate,
    target: &Target,
    separator: Option<char>,
) -> Result<Vec<DatasetId>, BadTarget> {
    let segments: Vec<&str> = target.segments().collect();
    let mut texts = vec![String::new()];
    for piece in template.pieces() {
        let values = match piece {
            template::Piece::Text(text) => vec![Cow::Borrowed(text.as_str())],
            template::Piece::Segment(at) => {
                let segment = segments.get(*at).copied().unwrap_or_default();
                split_batch(&decode(segment).ok_or(BadTarget::DatasetName)?, separator)
            }
            template::Piece::Query(name) => {
                let values = query::values(target.query(), name);
                let [value] = values.as_slice() else { return Err(BadTarget::DatasetName) };
                let value = std::str::from_utf8(value).map_err(|_| BadTarget::DatasetName)?;
                split_batch(value, separator)
            }
        };
        texts = product(&texts, &values)?;
    }
    if texts.is_empty() {
        return Err(BadTarget::DatasetName);
    }
    texts.iter().map(|text| DatasetId::parse(text).ok_or(BadTarget::DatasetName)).collect()
}

/// The most data sets one request may name.
pub const MAX_BATCH: usize = 256;

/// The data set of a request that names one, in plain letters; `None`: it takes the long way.
fn one_dataset(template: &DatasetTemplate, target: &Target, separator: Option<char>) -> Option<DatasetId> {
    let plain = |value: &&str| !value.bytes().any(|byte| matches!(byte, b'%' | b','));
    let mut text = String::with_capacity(64);
    for piece in template.pieces() {
        match piece {
            template::Piece::Text(piece) => text.push_str(piece),
            template::Piece::Segment(at) => text.push_str(target.segments().nth(*at).filter(plain)?),
            template::Piece::Query(_) => return None,
        }
    }
    let whole = separator.is_none_or(|separator| !text.contains(separator));
    whole.then(|| DatasetId::parse(&text))?
}

fn split_batch(value: &str, separator: Option<char>) -> Vec<Cow<'static, str>> {
    let parts = value.split(|c| c == ',' || Some(c) == separator);
    parts.filter(|part| !part.is_empty()).map(|part| Cow::Owned(part.to_owned())).collect()
}

fn is_separator(byte: u8, named: Option<char>) -> bool {
    byte == b',' || named.is_some_and(|named| named == char::from(byte))
}

fn product(texts: &[String], values: &[Cow<'_, str>]) -> Result<Vec<String>, BadTarget> {
    if texts.len().saturating_mul(values.len()) > MAX_BATCH {
        return Err(BadTarget::DatasetName);
    }
    Ok(texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{value}"))).collect())
}

#[cfg(test)]
mod tests;
