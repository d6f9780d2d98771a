//! The OpenAPI description: what stands above the single operations, and what is true of all of them.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder, SecurityRequirement,
};

/// Answers that every operation under `/v1` may give: status, what it means.
const COMMON: [(&str, &str); 5] = [
    ("400", "The request cannot be read: its query, its headers or the syntax of its body."),
    ("401", "There is no usable secret token in Authorization."),
    (
        "403",
        "The token is not a secret one, its allowed domains do not admit the request, or a viewer may not do this.",
    ),
    (
        "429",
        "The token is none of this account, and too many such came from this address (`too_many_invalid_tokens`); Retry-After says how long. A right token is let in.",
    ),
    ("503", "The store cannot be reached; Retry-After says when to try again."),
];

/// Answers that an operation with a body may give besides.
const WITH_BODY: [(&str, &str); 3] = [
    ("413", "The body is larger than 256 KiB."),
    ("415", "The body is not JSON."),
    ("422", "Some fields cannot be taken; all of them are named."),
];

/// The description without any operation.
pub(super) fn begin() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Tollgate admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Tokens, the account, usage, nodes, members, who changed what, and whether a request would pass. Every call under /v1 needs a secret token of the \
             account. Errors are RFC 9457 problems with a stable `code`; a wrong body changes nothing and has every \
             wrong field named with a JSON pointer.",
        ))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A secret token of the account (sk_…)."))
        .build();
    let no_scopes: [&str; 0] = [];
    let mut api = OpenApiBuilder::new()
        .info(info)
        .security(Some([SecurityRequirement::new("secret_token", no_scopes)]))
        .build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("secret_token", SecurityScheme::Http(bearer));
    api
}

/// Adds to every operation the answers that it has in common with the others.
pub(super) fn complete(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        if !path.starts_with("/v1/") {
            continue;
        }
        for operation in operations(item) {
            let with_body: &[_] = if operation.request_body.is_some() { &WITH_BODY } else { &[] };
            for (status, meaning) in COMMON.iter().chain(with_body) {
                let known = &mut operation.responses.responses;
                if !known.contains_key(*status) {
                    known.insert((*status).to_owned(), problem(meaning).into());
                }
            }
        }
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.put].into_iter().flatten()
}

fn problem(meaning: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(meaning).content("application/problem+json", content).build()
}
