//! The subcommands of `comptoir`.
