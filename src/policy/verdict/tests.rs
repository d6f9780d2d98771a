use http::Method;

use super::*;
use crate::policy::Price;
use crate::policy::domain::DomainRules;
use crate::policy::route::{DatasetTemplate, Methods, PathTemplate, Route};
use crate::policy::signature::{self, BadSignature, SignatureRefusal};
use crate::policy::target::Target;
use crate::policy::{AccountId, Grant, TokenId};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn policy(kind: TokenKind) -> Policy {
    let id = TokenId::from_ulid(ulid::Ulid::from_parts(1, 1));
    Policy::new(id, AccountId::default_account(), kind, at("2026-01-01T00:00:00Z"))
}

fn publishable() -> Policy {
    policy(TokenKind::Publishable)
}

fn route(access: Access, dataset: Option<&str>) -> Route {
    let path = PathTemplate::parse("/{w}/{d}/**").unwrap();
    let dataset = dataset.map(|text| DatasetTemplate::parse(text, &path).unwrap());
    Route {
        path,
        upstream: "u".to_owned(),
        access,
        dataset,
        batch_separator_param: None,
        methods: Methods::default(),
        price: Price::flat(Credits(3)),
        items: None,
        signed: false,
        signature_body: crate::policy::signature::SignatureBody::Strict,
        max_signed_body: 1024,
        keep_encoded_slash: false,
        rewrite: None,
    }
}

/// One request to judge, changed by each test where it matters.
struct Case {
    policy: Policy,
    route: Route,
    method: Method,
    target: &'static str,
    origin: Option<&'static str>,
    from_browser: bool,
    leaked_secret: LeakedSecret,
    outside_browser: bool,
    now: &'static str,
    signature: Result<Checked, Denial>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            policy: publishable(),
            route: route(Access::Core, None),
            method: Method::GET,
            target: "/MY/CARS",
            origin: None,
            from_browser: false,
            leaked_secret: LeakedSecret::Flag,
            outside_browser: false,
            now: "2026-11-24T12:00:00Z",
            signature: Err(Denial::SignatureMissing),
        }
    }
}

impl Case {
    fn permit(&self) -> Permit {
        self.with_facts(|facts| match judge(facts, &self.policy) {
            Verdict::Pass(permit) => permit,
            Verdict::Deny(denial) => panic!("{denial:?}"),
        })
    }

    fn judge(&self) -> Result<Vec<Note>, Denial> {
        self.with_facts(|facts| self.judge_by(facts))
    }

    fn with_facts<T>(&self, judge: impl FnOnce(&Facts<'_>) -> T) -> T {
        let target = Target::parse(self.target.as_bytes(), None).unwrap();
        let errand = self.route.errand(&target, &self.method).unwrap();
        let origins: Vec<&[u8]> = self.origin.iter().map(|origin| origin.as_bytes()).collect();
        let facts = Facts {
            now: at(self.now),
            errand: &errand,
            page: &Page::read(&origins, &[]),
            client: None,
            from_browser: self.from_browser,
            leaked_secret: self.leaked_secret,
            outside_browser: self.outside_browser,
            signature: self.signature.as_ref().map_err(Denial::clone),
        };
        judge(&facts)
    }

    fn judge_by(&self, facts: &Facts<'_>) -> Result<Vec<Note>, Denial> {
        let examined = examine(facts, &self.policy).into_iter().find_map(|finding| finding.outcome.err());
        match judge(facts, &self.policy) {
            Verdict::Pass(permit) => {
                assert_eq!(examined, None, "explain and the gate disagree");
                assert_eq!((permit.pool(), permit.cost()), (self.route.access.pool(), Credits(3)));
                Ok(permit.notes().to_vec())
            }
            Verdict::Deny(denial) => {
                assert_eq!(examined.as_ref(), Some(&denial), "explain and the gate disagree");
                Err(denial)
            }
        }
    }
}

fn denied(dataset: &str, operation: crate::policy::Operation) -> Result<Vec<Note>, Denial> {
    Err(Denial::DatasetDenied { dataset: dataset.to_owned(), operation })
}

#[test]
fn a_new_token_reads_core_data_and_nothing_else() {
    use crate::policy::Operation::{Delete, Read, Write};
    let core = |method| Case { method, ..Case::default() }.judge();
    assert_eq!(core(Method::GET), Ok(vec![]));
    assert_eq!(core(Method::HEAD), Ok(vec![]));
    assert_eq!(core(Method::POST), Err(Denial::CoreDenied));
    assert_eq!(core(Method::DELETE), Err(Denial::CoreDenied));
    let premium = Case { route: route(Access::Premium, None), ..Case::default() };
    assert_eq!(premium.judge(), Err(Denial::PremiumDenied));
    for (method, operation) in [(Method::GET, Read), (Method::PUT, Write), (Method::DELETE, Delete)] {
        let dataset = Case { route: route(Access::Dataset, Some("{w}/{d}")), method, ..Case::default() };
        assert_eq!(dataset.judge(), denied("MY/CARS", operation));
    }
}

#[test]
fn a_grant_opens_its_data_sets_and_a_batch_needs_each() {
    use crate::policy::Operation::{Read, Write};
    let with = |grants: &[&str], target, method| {
        let grants = grants.iter().map(|grant| Grant::parse(grant).unwrap()).collect();
        let route = route(Access::Dataset, Some("{w}/{d}"));
        Case { policy: Policy { grants, ..publishable() }, route, target, method, ..Case::default() }.judge()
    };
    assert_eq!(with(&["MY/CARS"], "/my/cars", Method::GET), Ok(vec![]));
    assert_eq!(with(&["MY/CARS"], "/MY/CARS", Method::POST), denied("MY/CARS", Write));
    assert_eq!(with(&["MY/CARS", "MY/BIKES"], "/MY/CARS,BIKES", Method::GET), Ok(vec![]));
    assert_eq!(with(&["MY/CARS"], "/MY/CARS,BIKES,BOATS", Method::GET), denied("MY/BIKES", Read));
    assert_eq!(with(&["MY/*:read"], "/MY/CARS,BIKES", Method::GET), Ok(vec![]));
    assert_eq!(with(&["MY/*:read"], "/MY,YOUR/CARS", Method::GET), denied("YOUR/CARS", Read));
}

#[test]
fn core_access_reads_and_writing_core_data_needs_a_grant_besides() {
    let grants = vec![Grant::parse("CORE/CARS:write").unwrap()];
    let case = |core_access, target, method| {
        let policy = Policy { grants: grants.clone(), core_access, ..publishable() };
        Case { policy, route: route(Access::Core, Some("CORE/{d}")), target, method, ..Case::default() }
            .judge()
    };
    assert_eq!(case(true, "/CORE/CARS", Method::POST), Ok(vec![]));
    assert_eq!(case(true, "/CORE/BIKES", Method::GET), Ok(vec![]));
    assert!(matches!(case(true, "/CORE/BIKES", Method::POST), Err(Denial::DatasetDenied { .. })));
    assert_eq!(case(false, "/CORE/CARS", Method::POST), Err(Denial::CoreDenied));
    assert_eq!(case(false, "/CORE/CARS", Method::GET), Err(Denial::CoreDenied));
}

#[test]
fn a_secret_token_has_all_of_its_accounts_data() {
    for access in [Access::Core, Access::Premium, Access::Dataset] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let policy = policy(TokenKind::Secret);
            let case = Case { policy, route: route(access, Some("{w}/{d}")), method, ..Case::default() };
            assert_eq!(case.judge(), Ok(vec![]));
        }
    }
}

#[test]
fn a_token_that_is_not_active_or_out_of_time_does_nothing() {
    let with = |status, expires_at: Option<&str>, now| {
        let policy = Policy { status, expires_at: expires_at.map(at), ..publishable() };
        Case { policy, now, ..Case::default() }.judge()
    };
    let expiry = Some("2026-11-24T12:00:00Z");
    assert_eq!(with(Status::Disabled, None, "2026-11-24T12:00:00Z"), Err(Denial::TokenDisabled));
    assert_eq!(with(Status::Revoked, expiry, "2026-11-24T12:00:00Z"), Err(Denial::TokenRevoked));
    assert_eq!(with(Status::Active, expiry, "2026-11-24T11:59:59.999Z"), Ok(vec![]));
    assert_eq!(with(Status::Active, expiry, "2026-11-24T12:00:00Z"), Err(Denial::TokenExpired));
}

#[test]
fn signed_requests_are_never_let_through_unverified() {
    let token = Case { policy: Policy { signed_requests: true, ..publishable() }, ..Case::default() };
    assert_eq!(token.judge(), Err(Denial::SignatureMissing));
    let secret = Policy { signed_requests: true, ..policy(TokenKind::Secret) };
    assert_eq!(Case { policy: secret, ..Case::default() }.judge(), Err(Denial::SignatureMissing));
    let mut signed = route(Access::Core, None);
    signed.signed = true;
    assert_eq!(Case { route: signed.clone(), ..Case::default() }.judge(), Err(Denial::SignatureMissing));
    let refused = [
        (SignatureRefusal::Stale, Denial::SignatureStale),
        (SignatureRefusal::Invalid(BadSignature::Mismatch), Denial::SignatureInvalid(BadSignature::Mismatch)),
    ];
    for (refusal, denial) in refused {
        let signature = || Err(Denial::from(refusal));
        let case = Case { route: signed.clone(), signature: signature(), ..Case::default() };
        assert_eq!(case.judge(), Err(denial));
        assert_eq!(Case { signature: signature(), ..Case::default() }.judge(), Ok(vec![]), "nobody asked");
    }
    // Whether the body is still to come, the permit says.
    for (has_body, awaits_body) in [(false, false), (true, true)] {
        let signature = Ok(signature::checked_example(has_body));
        let case = Case { route: signed.clone(), signature, ..Case::default() };
        assert_eq!(case.judge(), Ok(vec![]));
        assert_eq!(case.permit().awaits_body(), awaits_body);
        let case = Case { signature: Ok(signature::checked_example(has_body)), ..Case::default() };
        assert!(!case.permit().awaits_body(), "nobody asked");
    }
}

#[test]
fn domains_are_enforced_or_only_reported() {
    let with = |domain_mode, origin| {
        let allowed_domains = DomainRules::parse(["www.example.com"]).unwrap();
        let policy = Policy { allowed_domains, domain_mode, ..publishable() };
        Case { policy, origin, ..Case::default() }.judge()
    };
    assert_eq!(with(DomainMode::Enforce, Some("https://www.example.com")), Ok(vec![]));
    for origin in [None, Some("null"), Some("https://evil.example")] {
        assert!(matches!(with(DomainMode::Enforce, origin), Err(Denial::DomainDenied(_))), "{origin:?}");
        let reported = with(DomainMode::Report, origin).unwrap();
        assert!(matches!(reported.as_slice(), [Note::DomainReported(_)]), "{origin:?}");
    }
}

#[test]
fn a_secret_token_from_a_browser_is_flagged_or_refused() {
    let with = |kind, leaked_secret| {
        Case { policy: policy(kind), from_browser: true, leaked_secret, ..Case::default() }.judge()
    };
    assert_eq!(with(TokenKind::Secret, LeakedSecret::Flag), Ok(vec![Note::SecretFromBrowser]));
    assert_eq!(with(TokenKind::Secret, LeakedSecret::Refuse), Err(Denial::SecretTokenLeaked));
    assert_eq!(with(TokenKind::Publishable, LeakedSecret::Refuse), Ok(vec![]));
    let outside = |kind| Case { policy: policy(kind), outside_browser: true, ..Case::default() }.judge();
    assert_eq!(outside(TokenKind::Publishable), Ok(vec![Note::PublishableOutsideBrowser]));
    assert_eq!(outside(TokenKind::Secret), Ok(vec![]));
}

#[test]
fn the_first_check_that_refuses_decides() {
    // Everything is wrong with this request; one after the other is mended.
    let mut case = Case {
        policy: Policy {
            status: Status::Disabled,
            signed_requests: true,
            core_access: false,
            allowed_domains: DomainRules::parse(["www.example.com"]).unwrap(),
            ..publishable()
        },
        ..Case::default()
    };
    assert_eq!(case.judge(), Err(Denial::TokenDisabled));
    case.policy.status = Status::Active;
    assert_eq!(case.judge(), Err(Denial::SignatureMissing));
    case.policy.signed_requests = false;
    assert!(matches!(case.judge(), Err(Denial::DomainDenied(_))));
    case.origin = Some("https://www.example.com");
    assert_eq!(case.judge(), Err(Denial::CoreDenied));
    case.policy.core_access = true;
    assert_eq!(case.judge(), Ok(vec![]));
}
