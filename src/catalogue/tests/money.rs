//! What orders cost.

use proptest::prelude::*;
use serde_json::json;

use super::super::{Charge, Order, Size};
use super::order;
use crate::domain::{Fixed, Money};

fn harbour(model: &str, size: &str, count: u32) -> Order {
    order(&json!({ "model": model, "prompt": "a quiet harbour", "size": size, "n": count })).unwrap()
}

fn usd(text: &str) -> Money {
    text.parse().unwrap()
}

#[test]
fn megapixels_are_rounded_up_for_each_image() {
    for (size, megapixels, price) in [
        ("512x512", 1, "0.025"),
        ("1024x1024", 1, "0.025"),
        ("1056x1024", 2, "0.05"),
        ("1536x1024", 2, "0.05"),
        ("1536x1536", 3, "0.075"),
    ] {
        let quote = harbour("flux/dev", size, 1).quote(Fixed::ONE).unwrap();
        assert_eq!((quote.megapixels, quote.price), (Fixed::from_whole(megapixels).unwrap(), usd(price)), "{size}");
        let four = harbour("flux/dev", size, 4).quote(Fixed::ONE).unwrap();
        assert_eq!(four.megapixels, Fixed::from_whole(4 * megapixels).unwrap(), "{size}");
    }
}

#[test]
fn the_markup_changes_the_price_and_not_the_cost() {
    let quote = harbour("flux-realism", "1024x768", 2).quote("1.3".parse().unwrap()).unwrap();
    assert_eq!((quote.price, quote.cost), (usd("0.091"), usd("0.07")));
}

#[test]
fn what_was_delivered_is_charged() {
    let order = harbour("flux/dev", "1024x768", 4);
    let half = order.charge(&[None, Some(Size { width: 1024, height: 768 })], Fixed::ONE).unwrap();
    assert_eq!((half.price, half.images), (usd("0.05"), 2));
    let nothing = order.charge(&[], Fixed::ONE).unwrap();
    let free = Charge { price: Money::ZERO, cost: Money::ZERO, megapixels: Fixed::ZERO, images: 0 };
    assert_eq!(nothing, free);
}

#[test]
fn more_than_was_ordered_costs_the_provider_s_price_and_no_more_than_the_quote() {
    let order = harbour("flux/dev", "1024x768", 1);
    let large = order.charge(&[Some(Size { width: 2048, height: 2048 })], Fixed::ONE).unwrap();
    assert_eq!((large.price, large.cost), (usd("0.025"), usd("0.1")));
    let many = order.charge(&[None, None, None], Fixed::ONE).unwrap();
    assert_eq!((many.price, many.cost), (usd("0.025"), usd("0.075")));
}

#[test]
fn an_amount_out_of_range_is_an_error_and_not_a_wrong_amount() {
    let order = harbour("flux/dev", "1536x1536", 4);
    let huge = Fixed::from_billionths(i64::MAX);
    assert!(order.quote(huge).is_ok());
    let absurd = [Some(Size { width: u32::MAX, height: u32::MAX }); 1000];
    assert!(order.charge(&absurd, Fixed::ONE).is_err());
}

fn any_size() -> impl Strategy<Value = Option<Size>> {
    prop::option::of((1..4096_u32, 1..4096_u32).prop_map(|(width, height)| Size { width, height }))
}

proptest! {
    #[test]
    fn nobody_pays_more_than_the_quote_or_less_than_nothing(
        model in prop::sample::select(vec!["flux/dev", "flux-realism"]),
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=4_u32,
        delivered in prop::collection::vec(any_size(), 0..6),
        markup in 0..5_000_000_000_i64,
    ) {
        let order = harbour(model, &format!("{}x{}", across * 32, down * 32), count);
        let markup = Fixed::from_billionths(markup);
        let quote = order.quote(markup).unwrap();
        let charge = order.charge(&delivered, markup).unwrap();
        prop_assert!(charge.price <= quote.price);
        prop_assert!(charge.price >= Money::ZERO && charge.cost >= Money::ZERO);
    }

    #[test]
    fn all_that_was_ordered_costs_what_was_quoted(
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=4_u32,
        markup in 0..5_000_000_000_i64,
    ) {
        let order = harbour("flux-realism", &format!("{}x{}", across * 32, down * 32), count);
        let markup = Fixed::from_billionths(markup);
        let quote = order.quote(markup).unwrap();
        let charge = order.charge(&vec![order.size(); count as usize], markup).unwrap();
        prop_assert_eq!((charge.price, charge.cost, charge.megapixels), (quote.price, quote.cost, quote.megapixels));
    }

    #[test]
    fn more_images_never_cost_less(
        (across, down) in (16..=48_u32, 16..=48_u32),
        count in 1..=3_u32,
    ) {
        let size = format!("{}x{}", across * 32, down * 32);
        let fewer = harbour("flux/dev", &size, count).quote(Fixed::ONE).unwrap();
        let more = harbour("flux/dev", &size, count + 1).quote(Fixed::ONE).unwrap();
        prop_assert!(fewer.price < more.price);
    }
}
