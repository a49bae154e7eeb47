//! Secret memory, the redactor and the `secret.sock` frame: what a process needs to hold a
//! credential for a moment and to be sure that it does not come back out.
//!
//! Owns: the arena of secret pages ([`memory`]), the only two types that hold secret bytes
//! ([`Secret`], [`Key`]), the zero-on-free allocator ([`alloc`]), redaction by fingerprint
//! ([`redact`]), the frame that carries a secret into a process ([`frame`]), and the wiping of the
//! stack behind a library ([`stack`]).
//!
//! Promises: a secret has no `Clone`, no `Display` and a `Debug` that shows its length only; its
//! bytes are wiped before the memory is used again; no error of this crate holds secret bytes.
//!
//! Does not promise: copies that other code makes (ring's key schedules, registers, the stack of
//! a callee) are out of reach and are wiped, at best, by [`alloc::ZeroOnFree`].

pub mod alloc;
pub mod frame;
pub mod memory;
pub mod redact;
mod secret;
pub mod stack;

pub use memory::{MAX_SECRET, MemoryError};
pub use secret::{Key, Secret, random_bytes};
