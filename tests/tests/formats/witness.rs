//! Witness receipts.

use mcpist_quorum::{Incarnation, LogPoint, RECEIPT_LEN, Receipt, StoreId, StorePoint};

use super::{bytes, shows};

#[test]
fn a_witness_receipt_is_these_bytes() {
    let written = bytes("witness-receipt");
    assert_eq!(written.len(), RECEIPT_LEN);
    let receipt = Receipt::from_bytes(&written).unwrap();
    let store: StoreId = "11111111-1111-4111-9111-111111111111".parse().unwrap();
    assert_eq!(receipt.store(), store);
    let at = StorePoint {
        incarnation: Incarnation {
            counter: 2,
            id: [1; 16],
            parent: [2; 16],
        },
        generation: 3,
        digest: [5; 32],
    };
    assert_eq!(*receipt.at(), at);
    let log = LogPoint {
        sequence: 9,
        head: [6; 32],
    };
    assert_eq!(*receipt.log(), log);
    assert_eq!(receipt.time(), 1_790_000_000);
    shows("witness-receipt", receipt.to_bytes());
    let text = format!("mcpist-witness1:{}", hex::encode(&written));
    assert_eq!(receipt.to_text(), text);
    assert_eq!(Receipt::parse(&text).unwrap(), receipt);
}
