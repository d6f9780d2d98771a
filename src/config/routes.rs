//! `routes`: which paths serve which data. What a route means is [`crate::policy::route`]'s.

use http::Method;

use super::reader::{Fields, Item, Keys, did_you_mean};
use crate::policy::cost::MAX_CREDITS;
use crate::policy::route::{Access, DatasetTemplate, Methods, PathTemplate, Route, RouteTable};
use crate::policy::{Credits, DatasetId, Operation};

const KEYS: Keys = Keys {
    known: &[
        "path",
        "upstream",
        "access",
        "dataset",
        "batch_separator_param",
        "credits",
        "methods",
        "operations",
        "signed",
        "encoded_slash",
    ],
    later: &[
        "per_item",
        "per_kilobyte",
        "per_record",
        "per_event",
        "from_header",
        "max_credits",
        "signature_*",
        "max_signed_body",
    ],
};

const ACCESS: [(&str, Access); 3] =
    [("core", Access::Core), ("premium", Access::Premium), ("dataset", Access::Dataset)];

const OPERATIONS: [(&str, Operation); 3] =
    [("read", Operation::Read), ("write", Operation::Write), ("delete", Operation::Delete)];

/// Reads the routes. `upstreams` are the names declared; `None` if they could not be read.
pub(super) fn read(item: &Item<'_>, upstreams: Option<&[&str]>) -> Option<RouteTable> {
    let items = item.list("a list of routes such as `- path: /v1/data/{dataset}`")?;
    if items.is_empty() {
        item.refuse("no route: nothing would be let through; expected at least one");
        return None;
    }
    let mut seen = Vec::new();
    let routes: Vec<Option<Route>> =
        items.iter().map(|item| read_route(item, upstreams, &mut seen)).collect();
    Some(RouteTable::new(routes.into_iter().collect::<Option<_>>()?))
}

fn read_route<'r>(
    item: &Item<'r>,
    upstreams: Option<&[&str]>,
    seen: &mut Vec<(PathTemplate, Item<'r>)>,
) -> Option<Route> {
    let fields = item.fields(&KEYS, "a mapping such as `path: /v1/data/{dataset}`")?;
    let path = fields.require("path", "a path such as /v1/data/{dataset}/**");
    let path = path.and_then(|item| read_path(&item, seen));
    let upstream = fields.require("upstream", "the name of an upstream");
    let upstream = upstream.and_then(|item| read_upstream(&item, upstreams));
    let access = fields.require("access", "core, premium or dataset");
    let access = access.and_then(|item| item.choice(&ACCESS));
    let dataset = read_dataset(&fields, path.as_ref(), access);
    let batch_separator_param =
        fields.optional("batch_separator_param", |item| read_separator(item, &fields));
    let credits = fields.or("credits", Credits(1), |item| item.integer(0..=MAX_CREDITS).map(Credits));
    let methods = read_methods(&fields);
    let signed = fields.or("signed", false, Item::boolean);
    let keep_encoded_slash = fields.or("encoded_slash", false, |item| read_slash(item, path.as_ref()));
    Some(Route {
        path: path?,
        upstream: upstream?,
        access: access?,
        dataset: dataset?,
        batch_separator_param: batch_separator_param?,
        methods: methods?,
        credits: credits?,
        signed: signed?,
        keep_encoded_slash: keep_encoded_slash?,
    })
}

fn read_path<'r>(item: &Item<'r>, seen: &mut Vec<(PathTemplate, Item<'r>)>) -> Option<PathTemplate> {
    let path = item.try_parse("a path such as /v1/data/{dataset}/**", PathTemplate::parse)?;
    let earlier = seen.iter().find(|(earlier, _)| covers(earlier, &path));
    if let Some((earlier, place)) = earlier {
        let which = if earlier.same_paths(&path) { "exactly the same paths" } else { "all of its paths" };
        item.refuse(format!(
            "{path} is never reached: {} ({earlier}, line {}) serves {which} and comes first; \
             take one out, or put the narrower one first",
            place.key(),
            place.line(),
        ));
    }
    let fine = earlier.is_none();
    seen.push((path.clone(), item.clone()));
    fine.then_some(path)
}

/// Whether every path of `inner` is one of `outer`'s.
fn covers(outer: &PathTemplate, inner: &PathTemplate) -> bool {
    let segments = |path: &PathTemplate| -> Vec<String> {
        let text = path.to_string();
        let text = text.strip_suffix("/**").unwrap_or(&text);
        text.split('/').skip(1).filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    let (wide, narrow) = (segments(outer), segments(inner));
    let long_enough = if outer.has_tail() {
        narrow.len() >= wide.len()
    } else {
        narrow.len() == wide.len() && !inner.has_tail()
    };
    long_enough && wide.iter().zip(&narrow).all(|(wide, narrow)| wide.starts_with('{') || wide == narrow)
}

fn read_upstream(item: &Item<'_>, upstreams: Option<&[&str]>) -> Option<String> {
    let name = item.text("the name of an upstream")?;
    match upstreams {
        Some(declared) if !declared.contains(&name.as_str()) => {
            let hint = did_you_mean(&name, declared.iter().copied());
            let start = if hint.is_empty() { "; declared" } else { " Declared" };
            item.refuse(format!("no upstream is named {name:?}{hint}{start}: {}", declared.join(", ")));
            None
        }
        _ => Some(name),
    }
}

/// `Some(None)`: there is none, and none is needed.
fn read_dataset(
    fields: &Fields<'_>,
    path: Option<&PathTemplate>,
    access: Option<Access>,
) -> Option<Option<DatasetTemplate>> {
    let expected = "a data set such as \"{workspace}/{dataset}\"";
    let Some(item) = fields.get("dataset") else {
        if access == Some(Access::Dataset) {
            fields.refuse_missing("dataset", &format!("missing; `access: dataset` needs {expected}"));
            return None;
        }
        return Some(None);
    };
    let Some(path) = path else {
        // The names it may use are not known, so only its type can be judged.
        item.text(expected)?;
        return None;
    };
    let template = item.try_parse(expected, |text| DatasetTemplate::parse(text, path))?;
    let text = template.to_string();
    if text.contains('/') && DatasetId::parse(&fill(&text)).is_none() {
        item.refuse(format!(
            "{text:?} can never name a data set; the names beside the slash are letters, digits, `_`, `-` and `.`"
        ));
        return None;
    }
    Some(Some(template))
}

/// The template with a letter for each `{name}`, to see whether the rest of it can stand in a data set's id.
fn fill(template: &str) -> String {
    let mut inside = false;
    let letter = |c: char| match c {
        '{' => {
            inside = true;
            Some('x')
        }
        '}' => {
            inside = false;
            None
        }
        c => (!inside).then_some(c),
    };
    template.chars().filter_map(letter).collect()
}

fn read_separator(item: &Item<'_>, fields: &Fields<'_>) -> Option<String> {
    let name = item.parse("the name of a query parameter other than `token`", |text| {
        let fine = !text.is_empty() && text != "token" && text.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| text.to_owned())
    })?;
    if fields.get("dataset").is_none() {
        item.refuse("there is nothing to separate without `dataset`; add it, or take this key out");
        return None;
    }
    Some(name)
}

fn read_slash(item: &Item<'_>, path: Option<&PathTemplate>) -> Option<bool> {
    let keep = item.choice(&[("refuse", false), ("keep", true)])?;
    match path {
        Some(path) if keep && !path.has_tail() => {
            item.refuse(format!(
                "an encoded slash can be kept only below a final `/**`, which {path} does not have"
            ));
            None
        }
        _ => Some(keep),
    }
}

/// The methods served where the route does not say.
const USUAL: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

fn read_methods(fields: &Fields<'_>) -> Option<Methods> {
    let operations = fields.or("operations", Vec::new(), read_operations);
    let listed = fields.optional("methods", read_listed);
    let (operations, listed) = (operations?, listed?);
    let stated = |method: &Method| {
        operations.iter().find(|(named, ..)| named == method).map(|(_, operation, _)| *operation)
    };
    let operation = |method: &Method| stated(method).or_else(|| Methods::usual(method));
    let Some(listed) = listed else {
        let usual =
            USUAL.iter().chain(operations.iter().map(|(method, ..)| method).filter(|m| !USUAL.contains(m)));
        let served = usual.filter_map(|method| Some((method.clone(), operation(method)?))).collect();
        return Some(Methods::new(served));
    };
    let mut fine = true;
    for (method, _, item) in &operations {
        if !listed.iter().any(|(listed, _)| listed == method) {
            item.refuse(format!("{method} is not among `methods`; add it there, or take it out here"));
            fine = false;
        }
    }
    let mut served = Vec::new();
    for (method, item) in &listed {
        match operation(method) {
            Some(operation) => served.push((method.clone(), operation)),
            None => {
                item.refuse(format!(
                    "what {method} does is not known; add `operations: {{{method}: read}}`, write or delete"
                ));
                fine = false;
            }
        }
    }
    fine.then(|| Methods::new(served))
}

fn read_listed<'r>(item: &Item<'r>) -> Option<Vec<(Method, Item<'r>)>> {
    let mut seen = Vec::new();
    let listed = item.list_of("a list of methods such as [GET, HEAD]", |item| {
        let text = item.text("a method such as GET")?;
        let method = parse_method(&text).map_err(|why| item.refuse(why)).ok()?;
        if seen.contains(&method) {
            item.refuse(format!("{method} stands twice in the list"));
            return None;
        }
        seen.push(method.clone());
        Some((method, item.clone()))
    })?;
    if listed.is_empty() {
        item.refuse("expected at least one method, found an empty list");
        return None;
    }
    Some(listed)
}

fn read_operations<'r>(item: &Item<'r>) -> Option<Vec<(Method, Operation, Item<'r>)>> {
    let named = item.named("a mapping from methods to operations such as `POST: read`")?;
    let read = |(name, item): (&str, Item<'r>)| {
        let method = parse_method(name).map_err(|why| item.refuse(why)).ok();
        let operation = item.choice(&OPERATIONS);
        Some((method?, operation?, item))
    };
    let operations: Vec<_> = named.into_iter().map(read).collect();
    operations.into_iter().collect()
}

/// Reads a method that a route may serve, or says why it may not.
fn parse_method(text: &str) -> Result<Method, String> {
    let method =
        Method::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not an HTTP method"))?;
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(format!("methods are written in upper case; did you mean {upper}?"));
    }
    match method {
        Method::OPTIONS => {
            Err("OPTIONS is not a route's to serve: the gate itself answers preflights".to_owned())
        }
        Method::TRACE | Method::CONNECT => Err(format!("{method} is never let through")),
        method => Ok(method),
    }
}
