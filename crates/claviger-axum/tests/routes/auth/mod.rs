//! The routes under `/auth`.

mod callback;
mod callback_failures;
mod check;
mod check_limits;
mod devices;
mod exchanges;
mod jwks;
mod login;
mod logout;
mod repair;
mod return_to;
mod session;
mod sign_in;
mod webhook;
