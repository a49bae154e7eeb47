//! Each format of this crate once, in hex, from the fixed values of `fixtures`; docs/FORMATS.md may
//! carry the same. The tests beside each format compute and read them. They were first computed from
//! the layouts by a program that shares no code with this one.

/// The AAD of record `gitlab`, version 3, kind `bearer`, no expiry, vault `ops`, epoch 44…, two hosts.
pub(crate) const RECORD_AAD_HEX: &str = "\
    000000106d63706973742d7265636f72642d7631000000101111111111114111\
    9111111111111111000000036f70730000001044444444444444444444444444\
    444444000000066769746c616200000000000000080000000000000003000000\
    0662656172657200000008000000000000000000020000000e6769746c61622e\
    6578616d706c650000000d31302e302e302e373a38343433";

/// `glpat-example` sealed for that AAD under a vault key of 07…, with the salt 55….
pub(crate) const RECORD_HEX: &str = "\
    4d43505201444444444444444444444444444444445555555555555555555555\
    55555555555555555555555555dd1be0049b698a89063f493b28a6c08b2b8b71\
    a0d347c38c9dcc854437eacf722a791541f9564b3e8b3bb40a9dcb1154557ed3\
    74062c4b765e5d2a6e42";

/// The key 09… wrapped under 01… for purpose `root` and AAD `config`, with the salt 55….
pub(crate) const WRAPPED_KEY_HEX: &str = "\
    4d43505201000000000000000000000000000000005555555555555555555555\
    55555555555555555555555555befcea002e24bc7207d470a186ee3dbc3bb580\
    b1cfb0e371f279a390599e5c1b5617803bba99376040dce607ce2390b96c6179\
    acc111b9cb905401488e5a606d8209820aacdc38fdff866173f641cf72";

/// The values of shares 1 to 5 of the secret 00 01 … 1f, needed 3, whose coefficients of x¹ and x²
/// are bytes 32 to 95 of the sequence i · 37 mod 256.
pub(crate) const SPLIT_VALUES_HEX: [&str; 5] = [
    "e0a162a3e4a566e7a869aaebacadeeaf70b1f2b3b4f5b677b8f97abbfcbd7ebf",
    "401fd397117e824d38cad01469905a359dd9237c97633290fe3ad692747b87f3",
    "a0bfb337f1dee2ad98aa70f4c930ba95fd79c3dc378392f05edab63294dbe753",
    "da32ff213b731ee1df9897083e19ace43ee0f51d447bb9050d92a97736254836",
    "3a929f81dbd37e017ff837e89eb94c445e4015bde49b1965ad72c9d7d6852896",
];

/// The key that wraps the root key, from the split secret 09…, set 22…, generation 1.
pub(crate) const KEK_HEX: &str = "eb18628995b8d10bbb87866f24ce1154451cbbe6510f2a5cca835885b848acbf";

/// Share 2 of three of five, set 22…, generation 1, value 00 01 … 1f.
pub(crate) const SHARE_TEXT: &str = "\
    mcpist-share1qy3zyg3zyg3zyg3zyg3zyg3zyg3qqqqqqypqxpgqqypqxpq9qcr\
    sszg2pvxq6rs0zqg3yyc5z5tpwxqergd3c8g7ru0q57fg";

/// The digest of that share.
pub(crate) const SHARE_DIGEST_HEX: &str =
    "7e72182ba81b40ce693e5b189b2fdf65f27b2b0b0d56624b12d8ec6ee06df674";

/// Two of two, with two officers.
pub(crate) const SEAL_CONFIG_HEX: &str = "\
    6d63707365616c63000111111111111141119111111111111111222222222222\
    22222222222222222222000000010202000200000008686f6c6465722d310000\
    000e61676531726563697069656e743197d22494a8556f1c8881e7d04427c6b5\
    c0946a820f01a8592a4ee2741754de5900000008686f6c6465722d320000000e\
    61676531726563697069656e743280d086e9608cdd09dcd0b854cf6cd0e18254\
    0fa28307ea1e99a4669b74b7a154333333333333333333333333333333333333\
    33333333333333333333333333330002000000044f6c67610a0a0a0a0a0a0a0a\
    0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a000000044f6d6172\
    0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
    00000000006ab13b80";

/// The digest of that config.
pub(crate) const SEAL_CONFIG_DIGEST_HEX: &str =
    "1630e9d7ac39558fe014a8481cf7fa9cf3c2e5c87d8b57b74ecf8bab80afc206";

/// Unseal a store whose config has the digest 77…, nonce 66….
pub(crate) const UNSEAL_PLAN_HEX: &str = "\
    6d637063706c616e000102666666666666666666666666666666661111111111\
    1141119111111111111111222222222222222222222222222222220000000103\
    0577777777777777777777777777777777777777777777777777777777777777\
    77";

/// The digest of that plan.
pub(crate) const UNSEAL_PLAN_DIGEST_HEX: &str =
    "c5de3d13739fc0503b3f44feb8793106bf5232f5fa10ed65e0097e295e795fbe";

/// Make a dev store of two holders without recipients.
pub(crate) const INIT_PLAN_HEX: &str = "\
    6d637063706c616e000101666666666666666666666666666666661111111111\
    1141119111111111111111222222222222222222222222222222220000000102\
    020002000000034164610000000000000003426f62000000000002000000044f\
    6c67610a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\
    0a0a0a000000044f6d61720b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
    0b0b0b0b0b0b0b0b0b0b0b333333333333333333333333333333333333333333\
    333333333333333333333301";

/// The record of init of a store of two holders and two officers.
pub(crate) const CEREMONY_HEX: &str = "\
    6d6370636572656d000111111111111141119111111111111111222222222222\
    2222222222222222222200000001020200000000006ab13b8077777777777777\
    7777777777777777777777777777777777777777777777777788888888888888\
    8888888888888888888888888888888888888888888888888833333333333333\
    3333333333333333333333333333333333333333333333333399999999999999\
    99999999999999999999999999999999999999999999999999aaaaaaaaaaaaaa\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0002000000044f\
    6c67610a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\
    0a0a0a000000044f6d61720b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
    0b0b0b0b0b0b0b0b0b0b0b000200000003416461cccccccccccccccccccccccc\
    cccccccccccccccccccccccccccccccccccccccc00000003426f62dddddddddd\
    dddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// The same as text.
pub(crate) const CEREMONY_TEXT: &str = "\
MCPist ceremony record

store           11111111-1111-4111-9111-111111111111
share set       22222222222222222222222222222222
generation      1
threshold       2 of 2
created         2026-09-21 14:13:20 UTC
plan            7777777777777777777777777777777777777777777777777777777777777777
seal config     8888888888888888888888888888888888888888888888888888888888888888
trust root      3333333333333333333333333333333333333333333333333333333333333333
audit key       9999999999999999999999999999999999999999999999999999999999999999
store key       aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
officer         Olga
  key           0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
officer         Omar
  key           0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b
holder 1        Ada
  share digest  cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
holder 2        Bob
  share digest  dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
record digest   e5d1fcec4d7cf23b61e8312a78c09cf4b563da8eb57cf3dc7594d0ad30039f3e
";

/// The name HMAC of the shared record `gitlab` of vault `ops` under the name key 06….
pub(crate) const NAME_HMAC_HEX: &str =
    "8b315b3550a2d31e74c29cdf43c50f043534037eee102e41620e145c0b1c87e0";

/// The Merkle root of a vault without records.
pub(crate) const EMPTY_ROOT_HEX: &str =
    "498c92c6ed25cee70953fcc01b8c337741fa2e861dada7f8902d4dcbe4966a0b";

/// The root of vault `ops` with that record alone: version 3, commitment and tag 77…, head key 05….
pub(crate) const BUCKETS_ROOT_HEX: &str =
    "16802dc73bd56ee3cca85d587cac7cf11b3bed1499e0db7c7872b8b864048303";

/// A head: counter 2, incarnation 01…, parent 02…, generation 3, count 4, root 05….
pub(crate) const HEAD_HEX: &str = "\
    6d63707668656164000100000000000000020101010101010101010101010101\
    0101020202020202020202020202020202020000000000000003000000000000\
    0004050505050505050505050505050505050505050505050505050505050505\
    0505";

/// The digest of that head.
pub(crate) const HEAD_DIGEST_HEX: &str =
    "e5c089ceb0d9585f280fa87d08b2ac61d9183773b86dc0749f2d3b4e9a59e15b";
