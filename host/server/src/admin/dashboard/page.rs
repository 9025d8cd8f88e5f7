//! The files of the page. They have no figures, so they need no token.

use crate::admin::response::{AdminBody, respond};
use http::{Response, StatusCode};

/// A file of the page.
struct PageFile {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

const FILES: [PageFile; 3] = [
    PageFile {
        path: "/dashboard.css",
        media_type: "text/css; charset=utf-8",
        content: include_str!("dashboard.css"),
    },
    PageFile {
        path: "/dashboard.js",
        media_type: "text/javascript; charset=utf-8",
        content: include_str!("dashboard.js"),
    },
    PageFile {
        path: "/icon.svg",
        media_type: "image/svg+xml",
        content: include_str!("icon.svg"),
    },
];

const HTML: &str = "text/html; charset=utf-8";

/// Returns the page.
pub(in crate::admin) fn index() -> Response<AdminBody> {
    respond(StatusCode::OK, HTML, include_str!("index.html"))
}

/// Returns a file that the page refers to.
pub(in crate::admin) fn file(path: &str) -> Option<Response<AdminBody>> {
    let file = FILES.iter().find(|file| file.path == path)?;
    Some(respond(StatusCode::OK, file.media_type, file.content))
}

/// Returns the form that asks for the token.
pub(in crate::admin) fn login(is_wrong: bool) -> Response<AdminBody> {
    let notice = match is_wrong {
        true => r#"<p class="notice" role="alert">That is not the token.</p>"#,
        false => "",
    };
    let page = include_str!("login.html").replace("<!-- notice -->", notice);
    respond(StatusCode::UNAUTHORIZED, HTML, page)
}
