//! The session store of several instances: a PostgreSQL database, version 13 or newer.
//!
//! | module | question it answers |
//! |---|---|
//! | `store` | how a call of the trait becomes a statement or a transaction |
//! | `sessions`, `queues`, `logins`, `shared_entries` | what is asked of each table; all SQL on it |
//! | `notify` | how one instance notifies all of a change |
//! | `apply` | how each kind of change is written: compare-and-set |
//! | `coalescer` | how claims and new pairs of several sessions are written together |
//! | `archive` | how all rows are read, and added as they are, and who is kept away meanwhile |
//! | `row` | how PostgreSQL takes a session and a pending revocation |
//! | `values` | how PostgreSQL takes and gives the values of columns |
//! | `database` | who gets a connection, how long it may take, what is tried again |
//! | `address` | where the database is, and how the way there is protected |
//! | `schema` | which tables there are, and how a database comes to have them |
//! | `changes` | how instances hear of each other's ends |
//! | `clock` | what time it is for all instances |
//! | `error` | what went wrong, and who must act |
//!
//! Every write is one statement, or a short transaction that waits only for the database. No lock
//! outlasts a call.
//!
//! # Behind a pooler
//!
//! A pooler in transaction mode, such as PgBouncer with `pool_mode = transaction`, needs
//! [`Options::transaction_pooler`]. Statements are then sent without names, since a name may be
//! unknown on the next connection, or belong to another client.
//!
//! Two things do not work there:
//!
//! - [`PostgresStore::changes`] needs a connection of its own. Give it an address that bypasses the
//!   pooler in [`Options::listen_address`].
//! - The store sets no time limits on connections. Set `statement_timeout` and
//!   `idle_in_transaction_session_timeout` for the role instead.
//!
//! # How to add a schema step
//!
//! Write it in `migrations/`, and append it to `MIGRATIONS` in `schema`. Never change an older one.
//! The previous release must go on working beside it, which `cargo xtask releases` checks. So
//! remove only what that release no longer uses.

mod address;
mod apply;
mod archive;
mod changes;
mod clock;
mod coalescer;
mod database;
mod error;
mod logins;
mod notify;
mod queues;
mod row;
mod schema;
mod sessions;
mod shared_entries;
mod store;
mod values;

// The tests' server imports this crate by name, as other crates do.
#[cfg(test)]
extern crate self as claviger_store_postgres;

pub use address::{Address, Way};
pub use changes::Changes;
pub use clock::DatabaseClock;
pub use error::{AddressError, OpenError};
pub use schema::{Kind, Plan, Step};
pub use store::{Options, PostgresStore};
