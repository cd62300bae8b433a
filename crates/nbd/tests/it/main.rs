//! The server and the client on real sockets, against each other and against programs that were not
//! written here.

mod authority;
mod bounds;
mod fuzz;
mod golden;
mod here;
mod listener;
mod malformed;
mod mount;
mod peers;
mod requests;
mod support;
mod tls;
