use mcpist_sealer::{Barrier, Sealed};

fn open(barrier: &Barrier<Sealed>) {
    let _ = barrier.vault("prod");
    let _ = barrier.system();
}

fn main() {}
