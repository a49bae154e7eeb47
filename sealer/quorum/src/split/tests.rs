use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::fixtures::{key, key_of, set, three_of_five};
use crate::vectors::{KEK_HEX, SPLIT_VALUES_HEX};

/// Multiplication in GF(2⁸) modulo x⁸+x⁴+x³+x+1, one bit at a time.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    product
}

fn at(polynomial: &[u8], x: u8) -> u8 {
    polynomial
        .iter()
        .rev()
        .fold(0, |sum, coefficient| times(sum, x) ^ coefficient)
}

/// The constant term of the polynomial through `points`: Lagrange's formula at zero.
fn at_zero(points: &[(u8, u8)]) -> u8 {
    // The inverse is the 254th power: every other element to the 255th is one.
    let inverse = |x| (1..254).fold(x, |power, _| times(power, x));
    let term = |&(x, y): &(u8, u8)| {
        let others = points
            .iter()
            .map(|point| point.0)
            .filter(|other| *other != x);
        others.fold(y, |term, other| {
            times(term, times(other, inverse(x ^ other)))
        })
    };
    points.iter().map(term).fold(0, |sum, term| sum ^ term)
}

fn values(shares: &[Share]) -> Vec<(u8, &Key)> {
    shares
        .iter()
        .map(|share| (share.index(), share.value()))
        .collect()
}

fn counting() -> [u8; 32] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

#[test]
fn the_field_is_the_one_of_fips_197() {
    // FIPS 197, section 4.2: {57} · {83} = {c1} and {57} · {13} = {fe}.
    assert_eq!((times(0x57, 0x83), times(0x57, 0x13)), (0xc1, 0xfe));
    assert_eq!((Gf256(0x57) * Gf256(0x83)).0, 0xc1);
}

#[test]
fn the_example_in_hex_is_split_and_combined() {
    let coefficients: Vec<u8> = (0..96).map(|at: u8| at.wrapping_mul(37)).collect();
    let shares = split_with(
        &key_of(&counting()),
        &coefficients,
        three_of_five(),
        set(),
        Generation::FIRST,
    )
    .unwrap();
    let found: Vec<String> = shares
        .iter()
        .map(|s| hex::encode(s.value().expose()))
        .collect();
    assert_eq!(found, SPLIT_VALUES_HEX);
    for share in &shares {
        for (byte, value) in share.value().expose().iter().enumerate() {
            let polynomial = [
                counting()[byte],
                coefficients[32 + byte],
                coefficients[64 + byte],
            ];
            assert_eq!(*value, at(&polynomial, share.index()));
        }
    }
    let back = combine_points(3, &values(&shares)[1..4]).unwrap();
    assert_eq!(back.expose(), &counting());
}

#[test]
fn x_of_zero_is_refused() {
    let value = key(1);
    let error = combine_points(2, &[(0, &value), (1, &value)]).unwrap_err();
    assert!(matches!(error, CombineError::Index(0)));
}

#[test]
fn one_x_twice_is_refused() {
    let (a, b) = (key(1), key(2));
    let error = combine_points(3, &[(4, &a), (5, &b), (4, &a)]).unwrap_err();
    assert!(matches!(error, CombineError::Index(4)));
}

#[test]
fn too_few_and_too_many_are_refused() {
    let shares = split(&key(5), three_of_five(), set(), Generation::FIRST).unwrap();
    for found in [0, 1, 2, 4, 5] {
        let error = combine_points(3, &values(&shares)[..found]).unwrap_err();
        assert!(matches!(error, CombineError::Count { needed: 3, found: f } if f == found));
    }
    assert!(matches!(
        combine_points(0, &[]),
        Err(CombineError::Count { .. })
    ));
}

#[test]
fn a_damaged_value_combines_to_other_bytes_which_is_why_digests_are_checked() {
    let shares = split(&key(5), three_of_five(), set(), Generation::FIRST).unwrap();
    let wrong = key(0);
    let mut points = values(&shares);
    points[1].1 = &wrong;
    let back = combine_points(3, &points[..3]).unwrap();
    assert_ne!(back.expose(), &[5; 32]);
}

#[test]
fn fewer_shares_than_needed_fit_every_secret() {
    // Two shares of a quorum of three, and any secret: the parabola through them exists.
    let shares = split(&key(5), three_of_five(), set(), Generation::FIRST).unwrap();
    let byte = |at: usize| shares[at].value().expose()[0];
    for secret in [0, 5, 0x80, 0xff] {
        let fits = (0..=255)
            .flat_map(|a| (0..=255).map(move |b| [secret, a, b]))
            .filter(|p| at(p, 1) == byte(0) && at(p, 2) == byte(1))
            .count();
        assert_eq!(fits, 1, "secret {secret}");
    }
}

#[test]
fn a_dev_share_of_a_threshold_of_one_is_the_secret() {
    let threshold = Threshold::dev(1, 3).unwrap();
    let shares = split(&key(9), threshold, set(), Generation::FIRST).unwrap();
    for point in values(&shares) {
        assert_eq!(combine_points(1, &[point]).unwrap().expose(), &[9; 32]);
    }
}

#[test]
fn two_splits_of_one_secret_share_nothing() {
    let split = || split(&key(9), three_of_five(), set(), Generation::FIRST).unwrap();
    for (a, b) in split().iter().zip(&split()) {
        assert_ne!(a.value().expose(), b.value().expose());
        assert_ne!(a.digest(), b.digest());
    }
}

#[test]
fn a_fresh_split_that_does_not_combine_is_not_given_out() {
    let shares = split(&key(9), three_of_five(), set(), Generation::FIRST).unwrap();
    assert!(check(&key(9), three_of_five(), &shares).is_ok());
    let error = check(&key(8), three_of_five(), &shares).unwrap_err();
    assert!(matches!(error, SplitError::SelfCheck));
}

#[test]
fn a_share_that_is_wrong_in_any_quorum_is_noticed() {
    for (needed, total) in [(2, 3), (3, 5), (7, 16), (16, 16)] {
        let threshold = Threshold::new(needed, total).unwrap();
        let tried = tried_quorums(threshold);
        assert!(tried.len() <= MOST_QUORUMS);
        assert!(tried.iter().all(|set| set.count_ones() == needed.into()));
        let mut shares = split(&key(9), threshold, set(), Generation::FIRST).unwrap();
        for at in 0..shares.len() {
            let value = *shares[at].value().expose();
            let put = |shares: &mut Vec<Share>, value: &[u8; 32]| {
                let index = shares[at].index();
                let share = Share::new(set(), Generation::FIRST, index, threshold, key_of(value));
                shares[at] = share;
            };
            let mut wrong = value;
            wrong[31] ^= 1;
            put(&mut shares, &wrong);
            assert!(
                check(&key(9), threshold, &shares).is_err(),
                "{at} of {total}"
            );
            put(&mut shares, &value);
        }
    }
    assert_eq!(tried_quorums(three_of_five()).len(), 10, "all of them");
}

/// Pearson's statistic of bytes that should be uniform over all 256 values.
fn chi_squared(bytes: impl Iterator<Item = u8> + Clone) -> f64 {
    let mut counts = [0_u32; 256];
    bytes
        .clone()
        .for_each(|byte| counts[usize::from(byte)] += 1);
    let expected = f64::from(u32::try_from(bytes.count()).unwrap()) / 256.0;
    let part = |count: u32| (f64::from(count) - expected).powi(2) / expected;
    counts.into_iter().map(part).sum()
}

#[test]
fn coefficients_are_uniform_over_all_256_values() {
    // The statistic of uniform bytes is 255 on average with a deviation of 22.6: 500 is not met once
    // in 10^16 runs. Bytes that are never zero give more than 700.
    const BOUND: f64 = 500.0;
    let inverse = |a: u8| (1..=255).find(|b| times(a, *b) == 1).unwrap();
    let threshold = Threshold::new(3, 3).unwrap();
    let secret = key_of(&counting());
    let (mut linear, mut square) = (Vec::new(), Vec::new());
    for _ in 0..4_000 {
        let shares = split(&secret, threshold, set(), Generation::FIRST).unwrap();
        for (byte, constant) in counting().into_iter().enumerate() {
            // y(1) = s + a + b and y(2) = s + 2a + 4b.
            let u = shares[0].value().expose()[byte] ^ constant;
            let v = shares[1].value().expose()[byte] ^ constant;
            let b = times(v ^ times(2, u), inverse(6));
            linear.push(u ^ b);
            square.push(b);
        }
    }
    for coefficients in [&linear, &square] {
        let found = chi_squared(coefficients.iter().copied());
        assert!(found < BOUND, "{found}");
        let never_zero = coefficients.iter().copied().filter(|byte| *byte != 0);
        let found = chi_squared(never_zero);
        assert!(found > BOUND, "{found} would pass");
    }
}

#[test]
fn coefficients_are_wiped() {
    let mut elements: Zeroizing<Elements> = Elements::new();
    for point in &mut elements.0 {
        point.identifier = IdentifierGf256(Gf256(0xaa));
        point.value = IdentifierGf256(Gf256(0xbb));
    }
    elements.zeroize();
    assert!(elements.0.iter().all(|point| *point == Point::default()));
}

#[test]
fn the_kek_in_hex_depends_on_set_and_generation() {
    let second = Generation::new(2).unwrap();
    let kek = |set, generation| *derive_kek(&key(9), set, generation).unwrap().expose();
    assert_eq!(hex::encode(kek(set(), Generation::FIRST)), KEK_HEX);
    let info = [b"\0\0\0\x0dmcpist-kek-v1".as_slice(), &[0, 0, 0, 1, 0]].concat();
    let mut expected = [0; 32];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(&[0x22; 16]), &[9; 32])
        .expand(&info, &mut expected)
        .unwrap();
    assert_eq!(kek(set(), Generation::FIRST), expected);
    assert_ne!(kek(set(), second), expected);
    assert_ne!(
        kek(SetId::from_bytes([0x23; 16]), Generation::FIRST),
        expected
    );
}

fn quorums() -> impl Strategy<Value = (Threshold, Vec<usize>)> {
    (2..=MAX_SHARES)
        .prop_flat_map(|total| (2..=total, Just(total)))
        .prop_flat_map(|(needed, total)| {
            let all: Vec<usize> = (0..total.into()).collect();
            let chosen = subsequence(all, usize::from(needed)).prop_shuffle();
            (Just(Threshold::new(needed, total).unwrap()), chosen)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_quorum_in_every_order_gives_the_secret_back(
        secret: [u8; 32], (threshold, chosen) in quorums(),
    ) {
        let shares = split(&key_of(&secret), threshold, set(), Generation::FIRST).unwrap();
        prop_assert_eq!(shares.len(), usize::from(threshold.total()));
        let all = values(&shares);
        let points: Vec<(u8, &Key)> = chosen.iter().map(|at| all[*at]).collect();
        let back = combine_points(threshold.needed(), &points).unwrap();
        prop_assert_eq!(back.expose(), &secret);
    }

    #[test]
    fn a_second_implementation_splits_and_combines_alike(
        secret: [u8; 32],
        coefficients in proptest::collection::vec(any::<u8>(), MAX_SHARES as usize * SECRET_LEN),
        (threshold, chosen) in quorums(),
    ) {
        let needed = usize::from(threshold.needed());
        let coefficients = &coefficients[..needed * SECRET_LEN];
        let shares =
            split_with(&key_of(&secret), coefficients, threshold, set(), Generation::FIRST).unwrap();
        for (byte, constant) in secret.iter().enumerate() {
            let higher = (1..needed).map(|power| coefficients[power * SECRET_LEN + byte]);
            let polynomial: Vec<u8> = std::iter::once(*constant).chain(higher).collect();
            let point = |share: &Share| (share.index(), share.value().expose()[byte]);
            for (x, y) in shares.iter().map(point) {
                prop_assert_eq!(y, at(&polynomial, x));
            }
            let quorum: Vec<(u8, u8)> = chosen.iter().map(|at| point(&shares[*at])).collect();
            prop_assert_eq!(at_zero(&quorum), *constant);
        }
    }
}
