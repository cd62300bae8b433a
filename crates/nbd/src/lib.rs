//! NBD server and client.

mod export;

pub use export::{Access, Export, ExportError, Exports, Extent};
