//! `methods` and `operations` of a route: what is served, and what it does to the data.

use http::Method;

use crate::config::reader::{Fields, Item, Named, Read};
use crate::config::tree::quote;
use crate::policy::Operation;
use crate::policy::route::Methods;

const OPERATIONS: [(&str, Operation); 3] =
    [("read", Operation::Read), ("write", Operation::Write), ("delete", Operation::Delete)];

/// The methods served where the route does not say.
const USUAL: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// A method, what it does, and where the file says so.
struct Stated<'r> {
    method: Method,
    operation: Operation,
    item: Item<'r>,
}

/// Reads both keys. Without `methods`, `operations` adds to what is usual; with it, both must agree.
pub(super) fn read(fields: &Fields<'_>) -> Read<Methods> {
    let stated = fields.or("operations", Vec::new(), read_operations);
    let listed = fields.optional("methods", read_listed);
    let (stated, listed) = (stated?, listed?);
    let operation = |method: &Method| {
        let stated = stated.iter().find(|stated| stated.method == *method);
        stated.map_or_else(|| Methods::usual(method), |stated| Some(stated.operation))
    };
    let Some(listed) = listed else {
        let added = stated.iter().map(|stated| &stated.method).filter(|method| !USUAL.contains(method));
        let served = USUAL.iter().chain(added);
        let served = served.filter_map(|method| Some((method.clone(), operation(method)?)));
        return Ok(Methods::new(served.collect()));
    };
    let served = |stated: &Stated<'_>| {
        let Stated { method, item, .. } = stated;
        if listed.iter().any(|(listed, _)| listed == method) {
            return Ok(());
        }
        Err(item.refuse(format!("{method} is not among `methods`; add it there, or take it out here")))
    };
    let agreed: Vec<Read<()>> = stated.iter().map(served).collect();
    let known = |(method, item): &(Method, Item<'_>)| {
        let operation = operation(method).ok_or_else(|| {
            item.refuse(format!(
                "what {method} does is not known; add `operations: {{{method}: read}}`, write or delete"
            ))
        });
        Ok((method.clone(), operation?))
    };
    let methods: Vec<Read<(Method, Operation)>> = listed.iter().map(known).collect();
    agreed.into_iter().collect::<Read<()>>()?;
    Ok(Methods::new(methods.into_iter().collect::<Read<_>>()?))
}

fn read_listed<'r>(item: &Item<'r>) -> Read<Vec<(Method, Item<'r>)>> {
    let mut seen = Vec::new();
    let listed = item.list_of("a list of methods such as [GET, HEAD]", |item| {
        let text = item.text("a method such as GET")?;
        let method = parse_method(&text).map_err(|why| item.refuse(why))?;
        if seen.contains(&method) {
            return Err(item.refuse(format!("{method} stands twice in the list")));
        }
        seen.push(method.clone());
        Ok((method, item.clone()))
    })?;
    if listed.is_empty() {
        return Err(item.refuse("expected at least one method, found an empty list"));
    }
    Ok(listed)
}

fn read_operations<'r>(item: &Item<'r>) -> Read<Vec<Stated<'r>>> {
    let read = |Named { name, at_name, value }: Named<'r>| {
        let method = parse_method(name).map_err(|why| at_name.refuse(why));
        let operation = value.choice(&OPERATIONS);
        Ok(Stated { method: method?, operation: operation?, item: at_name })
    };
    let named = item.named("a mapping from methods to operations such as `POST: read`")?;
    let operations: Vec<Read<Stated<'r>>> = named.into_iter().map(read).collect();
    operations.into_iter().collect()
}

/// Reads a method that a route may serve, or says why it may not.
fn parse_method(text: &str) -> Result<Method, String> {
    let method =
        Method::from_bytes(text.as_bytes()).map_err(|_| format!("{} is not an HTTP method", quote(text)))?;
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
