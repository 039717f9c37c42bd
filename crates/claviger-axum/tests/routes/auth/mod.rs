//! What lies under `/auth`.

mod callback;
mod callback_trouble;
mod check;
mod devices;
mod login;
mod logout;
mod repair;
mod session;
mod sign_in;
mod webhook;
