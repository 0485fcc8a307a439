//! `comptoir outbox` and `comptoir inbox`: what was set aside, in the hands of a person.
//!
//! Both work on the store beside a running server, which sees within seconds what was done.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;

use super::Files;
use crate::clock::{Clock, SystemClock, rfc3339};
use crate::config::Config;
use crate::store::OrderRules;
use crate::store::orders::{Desk, LIST_BOUND, Received};

/// Events that the platform refused.
#[derive(Debug, Subcommand)]
pub(super) enum Outbox {
    /// Say which there are and why they were refused.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the content of one; it may name a customer.
    Show {
        /// Its number in the list.
        id: i64,
    },
    /// Send again: after the platform was mended.
    Resend {
        /// Their numbers in the list.
        #[arg(required_unless_present = "all")]
        ids: Vec<i64>,
        /// All of them.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Give up for good: the platform will never hear of it.
    Drop {
        /// Their numbers in the list.
        #[arg(required = true)]
        ids: Vec<i64>,
    },
}

/// Messages of the platform that could not be taken as orders.
#[derive(Debug, Subcommand)]
pub(super) enum Inbox {
    /// Say which there are and what is wrong with them.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print one as it came; it may name a customer.
    Show {
        /// Its id in the list.
        id: String,
    },
    /// Take again: after an update that knows its form, or to have its document fetched at once.
    Retry {
        /// Their ids in the list.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Give up for good: it becomes no order.
    Drop {
        /// Their ids in the list.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

fn desk(files: &Files) -> anyhow::Result<(Desk, Config)> {
    let (config, _) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    Ok((Desk::open(&config.store.data_dir)?, config))
}

fn now_ms() -> i64 {
    SystemClock::default().wall_ms()
}

fn since(at_ms: i64) -> String {
    rfc3339(at_ms).unwrap_or_default()
}

/// The exit code when `missing` of what was named was not there.
fn verdict(missing: usize) -> ExitCode {
    if missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Outbox {
    pub(super) fn run(&self, files: &Files) -> anyhow::Result<ExitCode> {
        let (mut desk, _) = desk(files)?;
        let parked = desk.outbox(LIST_BOUND)?;
        match self {
            Self::List { json: true } => {
                let list: Vec<_> = parked
                    .iter()
                    .map(|item| {
                        json!({"id": item.id, "lane": item.lane, "kind": item.kind, "subject": item.subject,
                            "occurred_at": since(item.occurred_at_ms), "cause": item.error})
                    })
                    .collect();
                println!("{:#}", json!({ "outbox": list }));
            }
            Self::List { json: false } => {
                for item in &parked {
                    println!(
                        "{:>8}  {}  {:16}  {}  {}",
                        item.id,
                        since(item.occurred_at_ms),
                        item.kind,
                        item.error.as_deref().unwrap_or("?"),
                        item.subject.as_deref().unwrap_or("")
                    );
                }
                println!("{} set aside", parked.len());
            }
            Self::Show { id } => {
                let item = parked.iter().find(|item| item.id == *id);
                let item = item.with_context(|| format!("no event {id} is set aside"))?;
                println!("{}", item.body);
            }
            Self::Resend { ids, all } => {
                let ids = if *all {
                    parked.iter().map(|item| item.id).collect()
                } else {
                    ids.clone()
                };
                return each(&ids, |id| {
                    Ok(desk.resend(*id, now_ms())?.then_some("sent again"))
                });
            }
            Self::Drop { ids } => {
                return each(ids, |id| {
                    Ok(desk.drop_event(*id, now_ms())?.then_some("dropped"))
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Inbox {
    pub(super) fn run(&self, files: &Files) -> anyhow::Result<ExitCode> {
        let (mut desk, config) = desk(files)?;
        match self {
            Self::List { json } => {
                let parked = desk.inbox(LIST_BOUND)?;
                let list: Vec<_> = parked
                    .iter()
                    .map(|message| {
                        json!({"id": message.message_id, "why": message.why, "reason": message.reason,
                            "received_at": since(message.received_at_ms), "bytes": message.body.len()})
                    })
                    .collect();
                if *json {
                    println!("{:#}", json!({ "inbox": list }));
                    return Ok(ExitCode::SUCCESS);
                }
                for message in &parked {
                    println!(
                        "{}  {}  {}: {}",
                        message.message_id,
                        since(message.received_at_ms),
                        message.why,
                        message.reason
                    );
                }
                println!("{} set aside", parked.len());
            }
            Self::Show { id } => {
                let parked = desk.inbox(LIST_BOUND)?;
                let found = parked.into_iter().find(|message| message.message_id == *id);
                let Some(message) = found else {
                    bail!("no message {id} is set aside");
                };
                let mut out = io::stdout().lock();
                out.write_all(&message.body)?;
                if let Some(document) = message.document {
                    out.write_all(b"\n")?;
                    out.write_all(&document)?;
                }
                out.write_all(b"\n")?;
            }
            Self::Retry { ids } => {
                let rules = OrderRules {
                    default_role: config.devices.order_role.clone(),
                    command_ttl: config.devices.command_ttl,
                };
                return each(ids, |id| {
                    // Only the server has the way to its document.
                    if desk.fetch_again(id, now_ms())? {
                        return Ok(Some("its document is fetched again by the running server"));
                    }
                    match desk.take_again(id, &rules, now_ms())? {
                        None => Ok(None),
                        Some(Received::Parked { reason, .. }) => bail!("{id}: {reason}"),
                        Some(_) => Ok(Some("an order now")),
                    }
                });
            }
            Self::Drop { ids } => {
                return each(ids, |id| {
                    Ok(desk.drop_message(id, now_ms())?.then_some("dropped"))
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Acts on each and says what was done; `None`: there was no such item.
fn each<T: std::fmt::Display>(
    ids: &[T],
    mut act: impl FnMut(&T) -> anyhow::Result<Option<&'static str>>,
) -> anyhow::Result<ExitCode> {
    let mut missing = 0;
    for id in ids {
        if let Some(done) = act(id)? {
            println!("{id}: {done}");
        } else {
            missing += 1;
            println!("{id}: not set aside");
        }
    }
    Ok(verdict(missing))
}
