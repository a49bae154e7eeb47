//! What the fuzz targets share: a value that parses is written as exactly the bytes that were read.
//!
//! Every target takes bytes as a hostile file, peer or client would give them. A target fails on a panic, on memory
//! without bound, and where the reader takes two texts for one value, or one that its own writer would not write.

/// Reads `bytes`, and where they are a value compares what is written for it.
///
/// # Panics
/// Where the value is written in another way than it was read: that is what a target looks for.
pub fn canonical<T, E>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = read(bytes) {
        assert_eq!(
            write(&value),
            bytes,
            "read in one way and written in another"
        );
    }
}
