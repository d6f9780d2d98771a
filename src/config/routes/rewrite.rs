//! `rewrite`: what a route changes on the way to its upstream and back.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::config::reader::{Fields, Item, Keys, Named, Read};
use crate::config::upstreams::parse_authority;
use crate::policy::route::{HeaderChanges, NewPath, PathTemplate, Rewrite};

pub(in crate::config) const KEYS: Keys = Keys {
    known: &["path", "strip_prefix", "add_prefix", "host", "request_headers", "response_headers"],
    later: &[],
};
const HEADER_KEYS: Keys = Keys { known: &["set", "remove"], later: &[] };

/// Headers that say how a message is framed or whose connection it is; what they say is not the operator's to choose.
const FRAMING: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Which way headers go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

pub(super) fn read(item: &Item<'_>, path: Read<&PathTemplate>) -> Read<Arc<Rewrite>> {
    let fields = item.fields(&KEYS, "a mapping such as {strip_prefix: /api}")?;
    let new = read_path(&fields, path);
    let host = fields.optional("host", |item| item.parse("a host such as api.internal:80", parse_authority));
    let headers =
        |key: &str, way: Way| fields.or(key, HeaderChanges::default(), |item| read_headers(item, way));
    let (request, response) = (headers("request_headers", Way::In), headers("response_headers", Way::Out));
    Ok(Arc::new(Rewrite { path: new?, host: host?, request: request?, response: response? }))
}

fn read_path(fields: &Fields<'_>, of: Read<&PathTemplate>) -> Read<NewPath> {
    let (strip, add) = (fields.get("strip_prefix"), fields.get("add_prefix"));
    let Some(item) = fields.get("path") else {
        let Some(item) = strip.as_ref().or(add.as_ref()) else { return Ok(NewPath::default()) };
        let text = |item: &Option<Item<'_>>| {
            item.as_ref().map(|item| item.text("the beginning of a path, such as /api")).transpose()
        };
        let (strip_text, add_text) = (text(&strip)?, text(&add)?);
        let read = NewPath::parse_prefix(strip_text.as_deref(), add_text.as_deref(), of?);
        return read.map_err(|error| item.refuse(error.to_string()));
    };
    if let Some(item) = strip.or(add) {
        return Err(item.refuse("`path` says the whole path already; take one of the two out"));
    }
    let of = of?;
    item.try_parse("a path such as /internal/{dataset}/{rest}", |text| NewPath::parse(text, of))
}

fn read_headers(item: &Item<'_>, way: Way) -> Read<HeaderChanges> {
    let fields = item.fields(&HEADER_KEYS, "a mapping such as {set: {X-Name: value}, remove: [X-Other]}")?;
    let set = fields.or("set", Vec::new(), |item| {
        let named = item.named("a mapping such as {X-Name: value}")?;
        let read: Vec<Read<(HeaderName, HeaderValue)>> =
            named.iter().map(|named| read_set(named, way)).collect();
        read.into_iter().collect()
    });
    let remove = fields.or("remove", Vec::new(), |item| {
        item.list_of("a list such as [X-Name]", |item| {
            let name = item.text("the name of a header")?;
            parse_name(&name, way).map_err(|why| item.refuse(why))
        })
    });
    Ok(HeaderChanges { set: set?, remove: remove? })
}

fn read_set(named: &Named<'_>, way: Way) -> Read<(HeaderName, HeaderValue)> {
    let name = parse_name(named.name, way).map_err(|why| named.at_name.refuse(why));
    let value = named.value.parse("a header's value", |text| {
        let mut value = HeaderValue::from_str(text).ok()?;
        // It may be a secret of the environment; no log shows it.
        value.set_sensitive(true);
        Some(value)
    });
    Ok((name?, value?))
}

fn parse_name(text: &str, way: Way) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    let name = name.map_err(|_| format!("expected the name of a header, found \"{text}\""))?;
    // Some servers read `X_Name` as `X-Name`.
    let plain = name.as_str().replace('_', "-");
    let ours = plain.starts_with("x-tollgate") || plain == "x-request-id";
    let told = match way {
        Way::In => plain.starts_with("x-forwarded") || plain == "forwarded",
        Way::Out => plain.starts_with("access-control-"),
    };
    if ours || told {
        return Err(format!("{text} is the gate's own to write"));
    }
    if plain == "host" {
        return Err("the Host is changed by the key `host`".to_owned());
    }
    if FRAMING.contains(&plain.as_str()) {
        return Err(format!("{text} belongs to the connection and cannot be changed"));
    }
    Ok(name)
}
