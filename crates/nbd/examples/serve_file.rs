//! Serves a plain file over NBD: `cargo run --release --example serve_file --features testing --
//! FILE SOCKET`.

use landfall_nbd::testing::{ExportMap, FileExport};
use landfall_nbd::{Access, Server, ServerOptions, unix_uri};
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(file), Some(socket)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: serve_file FILE SOCKET");
        std::process::exit(2);
    };
    let export = Arc::new(FileExport::open(&file, Access::ReadWrite)?);
    let server = Server::new(ExportMap::of("", export), ServerOptions::default());
    let _listener = server.listen_unix(&socket).map_err(std::io::Error::other)?;
    println!("{}", unix_uri(&socket, ""));
    tokio::signal::ctrl_c().await
}
