//! The doors: TLS listeners for the four flows and a plain one for control. Faults and "offline" are applied
//! here, so that API, bus, blob and log input know nothing of them.

pub mod body;
pub mod connection;
pub mod door;
pub mod fault;
pub mod reply;

/// One kind of traffic a box has with the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// Documents, feed, events.
    Api,
    /// Service Bus.
    Bus,
    /// Blob storage.
    Blob,
    /// Log input.
    Logs,
}

/// How a door knows which flow a request belongs to.
#[derive(Debug, Clone)]
pub enum Flows {
    /// The door serves one flow whatever the Host says.
    One(Flow),
    /// The door is shared; the host name tells.
    ByHost(Vec<(String, Flow)>),
}

impl Flows {
    /// The flow of `host` (a port is ignored); `None` on a shared door that does not know it.
    pub fn of_host(&self, host: Option<&str>) -> Option<Flow> {
        match self {
            Self::One(flow) => Some(*flow),
            Self::ByHost(table) => {
                let host = host?;
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                table
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, flow)| *flow)
            }
        }
    }
}
