//! Addresses: what is bound, what is told about it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use serde::Serialize;

use crate::args::Args;
use crate::certificates::CertificateDir;
use crate::serve::door::Door;
use crate::serve::{Flow, Flows};

/// Where everything is served; also the content of the ready file.
#[derive(Debug, Serialize)]
pub struct Addresses {
    ready: bool,
    pid: u32,
    site: String,
    api: SocketAddr,
    bus: SocketAddr,
    blob: SocketAddr,
    logs: SocketAddr,
    control: SocketAddr,
    api_url: String,
    bus_url: String,
    /// Start of the URLs in media documents.
    pub blob_url: String,
    logs_url: String,
    control_url: String,
    ca_file: PathBuf,
}

/// The names in the certificate.
pub fn names(args: &Args) -> Vec<String> {
    let fixed = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut names: Vec<String> = Vec::new();
    for name in fixed
        .iter()
        .chain(&args.name)
        .chain(&args.api_host)
        .chain(&args.bus_host)
        .chain(&args.blob_host)
        .chain(&args.logs_host)
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Binds the doors: four, or one that is shared.
pub fn bind(args: &Args, tls: &Arc<ServerConfig>) -> Result<Vec<Door>> {
    let [api, bus, blob] = wanted(args);
    let open = |addr, flows| {
        Door::bind(addr, flows, Arc::clone(tls)).with_context(|| format!("bind {addr}"))
    };
    if args.listen.is_some() || (api.port() != 0 && api == bus && bus == blob) {
        let table = [
            (&args.api_host, Flow::Api),
            (&args.bus_host, Flow::Bus),
            (&args.blob_host, Flow::Blob),
            (&args.logs_host, Flow::Logs),
        ];
        let hosts = table
            .into_iter()
            .flat_map(|(hosts, flow)| hosts.iter().map(move |host| (host.clone(), flow)));
        return Ok(vec![open(api, Flows::ByHost(hosts.collect()))?]);
    }
    Ok(vec![
        open(api, Flows::One(Flow::Api))?,
        open(bus, Flows::One(Flow::Bus))?,
        open(blob, Flows::One(Flow::Blob))?,
        open(args.logs, Flows::One(Flow::Logs))?,
    ])
}

fn wanted(args: &Args) -> [SocketAddr; 3] {
    args.listen
        .map_or([args.api, args.bus, args.blob], |addr| [addr; 3])
}

impl Addresses {
    /// Of the doors as [`bind`] made them.
    pub fn of(
        args: &Args,
        doors: &[Door],
        control: SocketAddr,
        certificates: &CertificateDir,
    ) -> Result<Self> {
        let addr = |at: usize| doors.get(at).unwrap_or(&doors[0]).addr();
        let shared = doors.len() == 1;
        let url = |at: usize, hosts: &[String]| match hosts.first() {
            Some(host) if shared => format!("https://{host}{}", port_of(addr(at))),
            _ => format!("https://{}", addr(at)),
        };
        let ca_path = certificates.ca_path();
        Ok(Self {
            ready: true,
            pid: std::process::id(),
            site: args.site.clone(),
            api: addr(0),
            bus: addr(1),
            blob: addr(2),
            logs: addr(3),
            control,
            api_url: url(0, &args.api_host),
            bus_url: url(1, &args.bus_host),
            blob_url: args
                .blob_url
                .clone()
                .unwrap_or_else(|| url(2, &args.blob_host)),
            logs_url: url(3, &args.logs_host),
            control_url: format!("http://{control}"),
            ca_file: fs::canonicalize(&ca_path)
                .with_context(|| format!("find {}", ca_path.display()))?,
        })
    }

    /// Writes the ready file in one step, so that who waits for it never reads half of it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("partial");
        fs::write(&beside, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("write {}", path.display()))
    }
}

fn port_of(addr: SocketAddr) -> String {
    if addr.port() == 443 {
        String::new()
    } else {
        format!(":{}", addr.port())
    }
}
