//! `tracing`: where spans go, and which.

use std::time::Duration;

use url::Url;

use super::Secret;
use super::reader::{Item, Keys, Read};

pub(super) const KEYS: Keys = Keys {
    known: &["endpoint", "sample", "parent", "service_name", "headers", "timeout", "client_address"],
    later: &[],
};

/// Whose decision to keep a trace counts besides our own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceParents {
    /// That of `trusted_proxies`.
    #[default]
    Trusted,
    /// Everybody's.
    Always,
    /// Nobody's.
    Never,
}

/// How requests are traced.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where spans are sent: the collector's whole address.
    pub url: String,
    /// The part of traces that is kept, 0 to 1.
    pub sample: f64,
    /// Whose decision counts besides.
    pub parents: TraceParents,
    /// What the gate is called among services.
    pub service_name: String,
    /// Headers of each call.
    pub headers: Vec<(String, Secret)>,
    /// How long a call may take.
    pub timeout: Duration,
    /// Whether spans tell the client's address.
    pub client_address: bool,
}

const PARENTS: [(&str, TraceParents); 3] =
    [("trusted", TraceParents::Trusted), ("always", TraceParents::Always), ("never", TraceParents::Never)];
const SAMPLE: f64 = 0.01;
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(1));
const ADDRESS: &str = "an address such as http://127.0.0.1:4318";
const PATH: &str = "/v1/traces";

/// Reads `tracing`.
pub(super) fn read(item: &Item<'_>) -> Read<Tracing> {
    let fields = item.fields(&KEYS, "a mapping such as `endpoint: http://127.0.0.1:4318`")?;
    let url = fields.require("endpoint", ADDRESS).and_then(|item| read_endpoint(&item));
    let sample = fields.or("sample", SAMPLE, Item::part);
    let parents = fields.or("parent", TraceParents::default(), |item| item.choice(&PARENTS));
    let service_name = fields.or("service_name", "tollgate".to_owned(), |item| item.text("a name"));
    let headers = fields.or("headers", Vec::new(), read_headers);
    let timeout = fields.or("timeout", TIMEOUT, |item| item.duration(TIMEOUTS.0..=TIMEOUTS.1));
    let client_address = fields.or("client_address", true, Item::boolean);
    Ok(Tracing {
        url: url?,
        sample: sample?,
        parents: parents?,
        service_name: service_name?,
        headers: headers?,
        timeout: timeout?,
        client_address: client_address?,
    })
}

fn read_endpoint(item: &Item<'_>) -> Read<String> {
    // What stands before an @ may be a password, so it is not repeated.
    if item.scalar(ADDRESS)?.text.contains('@') {
        return Err(item.refuse("a user or password does not belong there; say it in `headers`"));
    }
    item.try_parse(ADDRESS, parse_endpoint)
}

/// The collector's base address, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it, or that of its traces.
fn parse_endpoint(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it must begin with http:// or https:// and name a host");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment");
    }
    let base = url.as_str().trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

fn read_headers(item: &Item<'_>) -> Read<Vec<(String, Secret)>> {
    let named = item.named("a mapping of header names, each with ${NAME} or file:PATH")?;
    let read = |header: &super::reader::Named<'_>| {
        let name = http::HeaderName::try_from(header.name);
        let name = name.map_err(|_| header.at_name.refuse("expected the name of a header"));
        let value = header.value.secret();
        let value = value.and_then(|value| match http::HeaderValue::try_from(value.expose()) {
            Ok(_) => Ok(value),
            Err(_) => Err(header.value.refuse("the value cannot stand in a header")),
        });
        Ok((name?.as_str().to_owned(), value?))
    };
    let headers: Vec<Read<_>> = named.iter().map(read).collect();
    headers.into_iter().collect()
}
