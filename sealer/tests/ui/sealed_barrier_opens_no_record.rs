use mcpist_sealer::{Barrier, Sealed, SealedRecord};

fn open(barrier: &Barrier<Sealed>, record: &SealedRecord) {
    let _ = barrier.open(record);
}

fn main() {}
