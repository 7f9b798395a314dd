//! `/etc/husk/config.toml`.
