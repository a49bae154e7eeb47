use mcpist_sealer::{Barrier, Unsealed};

fn use_after_seal(barrier: Barrier<Unsealed>) {
    let _sealed = barrier.seal();
    let _ = barrier.system();
}

fn main() {}
