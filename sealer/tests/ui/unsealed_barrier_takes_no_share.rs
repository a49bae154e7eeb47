use mcpist_quorum::{PlanDigest, Share};
use mcpist_sealer::{Barrier, Unsealed};

fn share(barrier: Barrier<Unsealed>, share: Share, plan: PlanDigest) {
    let _ = barrier.submit(share, plan, 0);
}

fn main() {}
