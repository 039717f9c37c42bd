//! An app that keeps its own data with sqlx, in the program that holds Claviger's store.
//!
//! Only one crate of a program may link SQLite. The workspace itself has a newer `rusqlite` than
//! sqlx can stand beside, so this crate has a lock file of its own: it shows that a version exists
//! that both accept.
