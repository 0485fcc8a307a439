//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// A stand-in of the hosted platform, for tests, benches and trying a box out.
#[derive(Debug, Parser)]
#[command(name = "platform-emulator", version)]
pub struct Args {
    /// One address for API, bus, blob and log input, told apart by the Host header.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["api", "bus", "blob", "logs"])]
    pub listen: Option<SocketAddr>,
    /// Address of the API (HTTPS). Port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub api: SocketAddr,
    /// Address of the Service Bus (HTTPS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub bus: SocketAddr,
    /// Address of the blob storage (HTTPS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub blob: SocketAddr,
    /// Address of the log input (HTTPS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub logs: SocketAddr,
    /// Address of the control API (plain HTTP; for tests and scripts only).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub control: SocketAddr,

    /// Host name of the API on a shared address (may be repeated).
    #[arg(
        long,
        value_name = "HOST",
        default_value = "api.server.commerce-hub.io"
    )]
    pub api_host: Vec<String>,
    /// Host name of the bus on a shared address (may be repeated).
    #[arg(long, value_name = "HOST", default_values_t = [
        String::from("e-serversync-ns.servicebus.windows.net"),
        String::from("koostodesapp-ns.servicebus.windows.net"),
    ])]
    pub bus_host: Vec<String>,
    /// Host name of the blob storage on a shared address (may be repeated).
    #[arg(
        long,
        value_name = "HOST",
        default_value = "simplementedata.blob.core.windows.net"
    )]
    pub blob_host: Vec<String>,
    /// Host name of the log input on a shared address (may be repeated).
    #[arg(long, value_name = "HOST", default_values_t = [
        String::from("api.logmatic.io"),
        String::from("http-intake.logs.datadoghq.eu"),
    ])]
    pub logs_host: Vec<String>,
    /// Start of the blob URLs in media documents [default: the blob address].
    #[arg(long, value_name = "URL")]
    pub blob_url: Option<String>,

    /// Where the CA and the certificate are kept, made at the first start.
    #[arg(long, value_name = "DIR")]
    pub ca_dir: PathBuf,
    /// A further DNS name or IP address for the certificate (may be repeated);
    /// localhost, 127.0.0.1 and the host names above are always in it.
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,

    /// Where the state is kept; it survives a restart.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The site this platform knows.
    #[arg(long, value_name = "ID")]
    pub site: String,
    /// The site's bearer token.
    #[arg(long, value_name = "TOKEN")]
    pub token: String,
    /// Name of the bus's shared access rule.
    #[arg(long, value_name = "NAME", default_value = "RootManageSharedAccessKey")]
    pub bus_key_name: String,
    /// Key of that rule, used as the UTF-8 text shown here.
    #[arg(long, value_name = "KEY")]
    pub bus_key: String,
    /// Key of the log input.
    #[arg(long, value_name = "KEY", default_value = "logs-key")]
    pub logs_key: String,
    /// A queue to create beside `site-{site}` (may be repeated).
    #[arg(long, value_name = "NAME")]
    pub queue: Vec<String>,

    /// Product documents to load, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub catalogue: Option<PathBuf>,
    /// Written (JSON: addresses, URLs, CA file) once everything is served.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}
