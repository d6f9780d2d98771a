//! `health`, `circuit` and `retries`: what is done about servers that fail.

use std::time::Duration;

use http::Method;

use super::{Item, Keys, Read, parse_host, parse_port};
use crate::policy::target::Target;

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The path that is asked for; `None`: a connection is enough.
    pub path: Option<String>,
    /// The `Host` of the question; `None`: the server's own.
    pub host: Option<String>,
    /// How long it is from one question to the next.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// The statuses of a server that is well.
    pub expect: Vec<u16>,
    /// After how many bad answers in a row a server is not asked any more.
    pub unhealthy_after: u32,
    /// After how many good ones it is again.
    pub healthy_after: u32,
}

/// When a server that fails is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// After how many failures within `window`.
    pub failures: u32,
    /// How long a failure counts.
    pub window: Duration,
    /// How long it is left alone, before one request tries it again.
    pub open_for: Duration,
    /// Statuses that count as failures.
    pub statuses: Vec<u16>,
}

/// Which requests are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// How often a request is tried in all.
    pub attempts: u32,
    /// After a connection that did not stand.
    pub connect: bool,
    /// After a connection that broke before an answer came.
    pub reset: bool,
    /// After these statuses.
    pub statuses: Vec<u16>,
    /// Which methods may be repeated once a server may have seen them.
    pub methods: Vec<Method>,
    /// How many such repetitions there are, in percent of the requests.
    pub budget: u32,
}

pub(super) const HEALTH_KEYS: Keys = Keys {
    known: &["path", "host", "interval", "timeout", "expect", "unhealthy_after", "healthy_after"],
    later: &[],
};
pub(super) const CIRCUIT_KEYS: Keys =
    Keys { known: &["failures", "window", "open_for", "statuses"], later: &[] };
pub(super) const RETRY_KEYS: Keys = Keys { known: &["attempts", "on", "methods", "budget"], later: &[] };

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_hours(1);

pub(super) fn read_health(item: &Item<'_>) -> Read<Health> {
    let fields = item.fields(&HEALTH_KEYS, "a mapping such as {path: /health, interval: 5s}")?;
    let path = fields.optional("path", |item| item.parse("a path such as /health", parse_path));
    let host = fields.optional("host", |item| item.parse("a host such as api.example", parse_authority));
    let duration = |key: &str, default: u64| {
        fields.or(key, Duration::from_secs(default), |item| item.duration(SHORTEST..=LONGEST))
    };
    let (interval, timeout) = (duration("interval", 5), duration("timeout", 2));
    let expect = fields.or("expect", vec![200], |item| read_statuses(item, 100..=599));
    let count = |key: &str, default: u64| {
        let count = fields.or(key, default, |item| item.integer(1..=100));
        count.map(|count| u32::try_from(count).unwrap_or(1))
    };
    let (unhealthy_after, healthy_after) = (count("unhealthy_after", 3), count("healthy_after", 2));
    let path = path?;
    if let (None, Some(item)) = (&path, fields.get("expect").or_else(|| fields.get("host"))) {
        return Err(item.refuse("without `path` nothing is asked, so there is no answer; add a path"));
    }
    Ok(Health {
        path,
        host: host?,
        interval: interval?,
        timeout: timeout?,
        expect: expect?,
        unhealthy_after: unhealthy_after?,
        healthy_after: healthy_after?,
    })
}

pub(super) fn read_circuit(item: &Item<'_>) -> Read<Circuit> {
    let fields = item.fields(&CIRCUIT_KEYS, "a mapping such as {failures: 5, window: 10s, open_for: 5s}")?;
    let failures = fields.or("failures", 5, |item| item.integer(1..=10_000));
    let duration = |key: &str, default: u64| {
        fields.or(key, Duration::from_secs(default), |item| item.duration(SHORTEST..=LONGEST))
    };
    let (window, open_for) = (duration("window", 10), duration("open_for", 5));
    let usual = vec![500, 502, 503, 504];
    let statuses = fields.or("statuses", usual, |item| read_statuses(item, 400..=599));
    Ok(Circuit {
        failures: u32::try_from(failures?).unwrap_or(1),
        window: window?,
        open_for: open_for?,
        statuses: statuses?,
    })
}

pub(super) fn read_retries(item: &Item<'_>) -> Read<Retries> {
    let fields = item.fields(&RETRY_KEYS, "a mapping such as {attempts: 3, on: [connect, reset, 503]}")?;
    let attempts = fields.or("attempts", 3, |item| item.integer(1..=10));
    let mut retries = Retries {
        attempts: 0,
        connect: true,
        reset: true,
        statuses: Vec::new(),
        methods: vec![Method::GET, Method::HEAD],
        budget: 20,
    };
    let on = fields.optional("on", |item| {
        (retries.connect, retries.reset) = (false, false);
        item.list_of("a list of connect, reset, 500, 502, 503 and 504", |item| read_cause(item, &mut retries))
    });
    let methods = fields.optional("methods", |item| item.list_of("a list such as [GET, HEAD]", read_method));
    let budget = fields.or("budget", 20, |item| item.integer(0..=100));
    on?;
    if let Some(methods) = methods? {
        retries.methods = methods;
    }
    retries.attempts = u32::try_from(attempts?).unwrap_or(1);
    retries.budget = u32::try_from(budget?).unwrap_or(0);
    Ok(retries)
}

fn read_cause(item: &Item<'_>, retries: &mut Retries) -> Read<()> {
    const EXPECTED: &str = "connect, reset, 500, 502, 503 or 504";
    let text = item.scalar(EXPECTED)?;
    match text.text.as_str() {
        "connect" => retries.connect = true,
        "reset" => retries.reset = true,
        "500" => retries.statuses.push(500),
        "502" => retries.statuses.push(502),
        "503" => retries.statuses.push(503),
        "504" => retries.statuses.push(504),
        _ => return Err(item.refuse(format!("expected {EXPECTED}, found {}", text.shown()))),
    }
    Ok(())
}

/// Only what may be done twice may be repeated (RFC 9110, 9.2.2).
fn read_method(item: &Item<'_>) -> Read<Method> {
    let expected = "GET, HEAD, PUT or DELETE";
    let text = item.text(expected)?;
    match text.as_str() {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "PUT" => Ok(Method::PUT),
        "DELETE" => Ok(Method::DELETE),
        "POST" | "PATCH" => Err(item.refuse(format!(
            "{text} is never repeated: a server may have done it already; expected {expected}"
        ))),
        _ => Err(item.refuse(format!("expected {expected}, found {}", item.scalar(expected)?.shown()))),
    }
}

fn read_statuses(item: &Item<'_>, range: std::ops::RangeInclusive<u64>) -> Read<Vec<u16>> {
    let statuses = item.list_of("a list of statuses such as [200]", |item| {
        item.integer(range.clone()).map(|status| u16::try_from(status).unwrap_or_default())
    })?;
    if statuses.is_empty() {
        return Err(item.refuse("expected at least one status, found an empty list"));
    }
    Ok(statuses)
}

/// A path that needs no rewriting to be canonical, perhaps with a query.
fn parse_path(text: &str) -> Option<String> {
    let target = Target::parse(text.as_bytes(), None).ok()?;
    (target.to_wire() == text).then(|| text.to_owned())
}

/// A host, perhaps with a port.
pub(in crate::config) fn parse_authority(text: &str) -> Option<String> {
    let whole = || parse_host(text).map(|_| text.to_owned());
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            parse_port(port)?;
            parse_host(host).map(|_| text.to_owned())
        }
        _ => whole(),
    }
}
