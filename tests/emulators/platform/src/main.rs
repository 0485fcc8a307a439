//! The platform emulator: an honest stand-in of the hosted platform, on one machine, with a memory.
//!
//! It serves four flows over TLS (API, Service Bus over REST, blob storage, log input) and a plain control API that puts
//! documents, orders and blobs in, shows what came out, and makes things go wrong. It shares no code with the
//! product, so that a misunderstanding cannot hide in both.

mod api;
mod args;
mod blob;
mod bus;
mod catalogue;
mod certificates;
mod control;
mod ddi;
mod enrol;
mod intake;
mod percent;
mod platform;
mod ready;
mod serve;
mod store;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use args::Args;
use clap::Parser;
use platform::{Credentials, Platform, now_ms};
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let store = Store::open(&args.data).with_context(|| format!("open {}", args.data.display()))?;
    if let Some(path) = &args.catalogue {
        load_catalogue(&store, path)?;
    }
    let certificates = certificates::CertificateDir::open(&args.ca_dir, &ready::names(&args))?;
    let doors = ready::bind(&args, &certificates.server_config()?)?;
    let control = TcpListener::bind(args.control)
        .await
        .context("bind the control address")?;
    let addresses = ready::Addresses::of(&args, &doors, control.local_addr()?, &certificates)?;
    let credentials = Credentials {
        site: args.site.clone(),
        token: args.token.clone(),
        bus_key_name: args.bus_key_name.clone(),
        bus_key: args.bus_key.clone(),
        logs_key: args.logs_key.clone(),
    };
    let blob_url = addresses.blob_url.trim_end_matches('/').to_owned();
    let platform = Arc::new(Platform::new(
        store,
        credentials,
        blob_url,
        serde_json::to_value(&addresses)?,
        doors.len(),
    ));
    bus::create_queues(&platform, &args.queue)?;

    let mut tasks = tokio::task::JoinSet::new();
    for door in doors {
        tasks.spawn(door.run(Arc::clone(&platform)));
    }
    tasks.spawn(serve_control(control, Arc::clone(&platform)));
    platform.opened().await;
    if let Some(path) = &args.ready_file {
        addresses.write(path)?;
    }
    tracing::info!(event = "emulator.ready", addresses = %serde_json::to_string(&addresses)?);

    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let outcome = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        Some(ended) = tasks.join_next() => ended?.context("a listener ended"),
    };
    platform.stop();
    while tasks.join_next().await.is_some() {}
    outcome
}

fn load_catalogue(store: &Store, path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut told = 0;
    let loaded = catalogue::load(store, "products", BufReader::new(file), now_ms(), |line| {
        if line - told >= 25_000 {
            told = line;
            tracing::info!(event = "catalogue.lines_loaded", line);
        }
    })?;
    for bad in &loaded.bad_lines {
        tracing::warn!(
            event = "catalogue.line_refused",
            line = bad.line,
            error = bad.error
        );
    }
    let (changed, unchanged, ids_made, bad) = (
        loaded.changed,
        loaded.unchanged,
        loaded.ids_made,
        loaded.bad,
    );
    tracing::info!(
        event = "catalogue.loaded",
        changed,
        unchanged,
        ids_made,
        bad
    );
    Ok(())
}

async fn serve_control(listener: TcpListener, platform: Arc<Platform>) -> std::io::Result<()> {
    let mut stopped = platform.stopped();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(serve::connection::serve_control(stream, Arc::clone(&platform)));
            },
        }
    }
}
