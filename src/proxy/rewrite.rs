//! Writes what a route changes into requests and responses, after the gate wrote its part.

use http::header;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::policy::route::Rewrite;

/// Changes the request that an upstream gets; `judged` is the target that was judged.
pub(super) fn request(rewrite: &Rewrite, judged: &str, upstream: &mut RequestHeader) -> Result<()> {
    upstream.set_raw_path(rewrite.path.apply(judged).as_bytes())?;
    for name in &rewrite.request.remove {
        upstream.remove_header(name);
    }
    for (name, value) in &rewrite.request.set {
        upstream.insert_header(name.clone(), value.clone())?;
    }
    match &rewrite.host {
        Some(host) => upstream.insert_header(header::HOST, host.as_str()),
        None => Ok(()),
    }
}

/// Changes the response that a client gets.
pub(super) fn response(rewrite: &Rewrite, response: &mut ResponseHeader) -> Result<()> {
    for name in &rewrite.response.remove {
        response.remove_header(name);
    }
    for (name, value) in &rewrite.response.set {
        response.insert_header(name.clone(), value.clone())?;
    }
    Ok(())
}
