//! The session store of several instances: a PostgreSQL database, version 13 or newer.
//!
//! | module | question it answers |
//! |---|---|
//! | `store` | how a call of the trait becomes a statement or a transaction |
//! | `sessions`, `slots`, `owed`, `suspicions`, `logins`, `memos` | what is asked of each table; all SQL on it |
//! | `replace` | how a session is changed: compare-and-set |
//! | `gather` | how claims and new pairs of several sessions are written together |
//! | `archive` | how all rows are read, and added as they are, and who is kept away meanwhile |
//! | `row` | a session as columns, and back |
//! | `values` | how a value becomes columns and back |
//! | `database` | who gets a connection, how long it may take, what is tried again |
//! | `address` | where the database is, and how the way there is protected |
//! | `schema` | which tables there are, and how a database comes to have them |
//! | `changes` | how instances hear of each other's ends |
//! | `clock` | what time it is for all instances |
//! | `error` | what went wrong, and who must act |
//!
//! Every write is one statement, or a transaction of a few that waits for nobody but the database. No lock outlasts a call.
//!
//! # Behind a pooler
//!
//! A pooler that gives a connection for one transaction at a time, such as PgBouncer with `pool_mode = transaction`, needs
//! [`Options::transaction_pooler`]: statements are then sent without a name, as a named one would be unknown on the next
//! connection, or be somebody else's. Two things cannot be done there. [`PostgresStore::changes`] listens, and a listener
//! needs a connection of its own: give it one that leads past the pooler ([`Options::listen_address`]). And no time limits
//! are set on connections: set `statement_timeout` and `idle_in_transaction_session_timeout` for the role instead.

mod address;
mod archive;
mod changes;
mod clock;
mod database;
mod error;
mod gather;
mod logins;
mod memos;
mod owed;
mod replace;
mod row;
mod schema;
mod sessions;
mod slots;
mod store;
mod suspicions;
mod values;

// The tests' server takes this crate as others do.
#[cfg(test)]
extern crate self as claviger_store_postgres;

pub use address::{Address, Way};
pub use changes::Changes;
pub use clock::DatabaseClock;
pub use error::{AddressError, OpenError};
pub use schema::{Kind, Plan, Step};
pub use store::{Options, PostgresStore};
