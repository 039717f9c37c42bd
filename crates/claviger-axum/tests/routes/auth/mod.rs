//! What lies under `/auth`.

mod callback;
mod callback_trouble;
mod check;
mod devices;
mod login;
mod logout;
mod session;
mod sign_in;
