//! The style sheet and the script: in the binary, under names that change with what they say.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Under its name it never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// One file.
struct Asset {
    name: String,
    kind: &'static str,
    content: &'static str,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        asset("console", "css", "text/css; charset=utf-8", STYLE),
        asset("console", "js", "text/javascript; charset=utf-8", SCRIPT),
        asset("icon", "svg", "image/svg+xml", ICON),
    ]
});

fn asset(stem: &str, extension: &str, kind: &'static str, content: &'static str) -> Asset {
    let hash = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
    let hash: String = hash.as_ref()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Asset {
        name: format!("{stem}-{hash}.{extension}"),
        kind,
        content,
    }
}

/// Where the style sheet is.
pub fn style() -> String {
    format!("/ui/assets/{}", ASSETS[0].name)
}

/// Where the script is.
pub fn script() -> String {
    format!("/ui/assets/{}", ASSETS[1].name)
}

/// Where the icon is.
pub fn icon() -> String {
    format!("/ui/assets/{}", ASSETS[2].name)
}

/// Gives one of them.
pub async fn get(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.kind),
                (header::CACHE_CONTROL, IMMUTABLE),
            ];
            (headers, asset.content).into_response()
        }
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}
