//! Style, script and icon, kept in the binary. Their addresses carry a digest of what they hold, so a browser may keep them
//! for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

struct Asset {
    stem: &'static str,
    ending: &'static str,
    r#type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset { stem: "console", ending: "css", r#type: "text/css", text: include_str!("assets/console.css") },
    Asset {
        stem: "console",
        ending: "js",
        r#type: "text/javascript",
        text: include_str!("assets/console.js"),
    },
    Asset { stem: "icon", ending: "svg", r#type: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

static NAMES: LazyLock<[String; 3]> = LazyLock::new(|| {
    ASSETS.map(|asset| {
        let digest = hex::encode(Sha256::digest(asset.text));
        format!("{}-{}.{}", asset.stem, digest.get(..12).unwrap_or_default(), asset.ending)
    })
});

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

impl Addresses {
    pub(super) fn now() -> Self {
        let [style, script, icon] = &*NAMES;
        let at = |name: &String| format!("/console/assets/{name}");
        Self { style: at(style), script: at(script), icon: at(icon) }
    }
}

/// `GET /console/assets/{name}`
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let found = NAMES.iter().zip(&ASSETS).find(|(known, _)| **known == name);
    let Some((_, asset)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        (header::CONTENT_TYPE, format!("{}; charset=utf-8", asset.r#type)),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
    ];
    (headers, asset.text).into_response()
}
