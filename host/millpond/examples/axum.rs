//! millpond beside a program's own routes, in one axum process: `cargo run --example axum -- DIR [ADDR]`.

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use millpond::metrics::{self, TextFormat};
use millpond::store::Folder;
use millpond::{Config, Limits, Millpond, Source};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: axum DIR [ADDR]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());

    // axum takes `/static` off the path, so named files are at millpond's own root. Where the paths of both fit
    // together as they are, `fallback_service` gives millpond whatever the program has no route for.
    let mut config = Config::default();
    config.mount_path = Some("/".parse()?);
    let folder = Folder::open(folder.as_ref())?;
    let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;

    let mut registry = Registry::default();
    let visits = Counter::<u64>::default();
    registry.register("visits", "Visits of the first page", visits.clone());
    metrics::register(&mut registry, &millpond, None);
    let registry = Arc::new(registry);

    let app = Router::new()
        .route("/", get(move || first_page(visits)))
        .route("/metrics", get(move || metrics(registry)))
        .nest_service("/static", millpond);

    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn first_page(visits: Counter) -> Html<&'static str> {
    visits.inc();
    Html("<!doctype html><title>Pond</title><img src=\"/static/pond.png\" alt=\"A pond\">")
}

async fn metrics(registry: Arc<Registry>) -> Result<impl IntoResponse, String> {
    let format = TextFormat::Prometheus;
    let text = metrics::encode(&registry, format).map_err(|error| error.to_string())?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text))
}
