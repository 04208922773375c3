//! Arithmetic on figures.

/// The value in the middle, or the mean of the two there; `None` of no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count.is_multiple_of(2) => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

/// How far the values lie apart, as a part of their median; `None` of fewer than two values.
pub fn spread(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    ratio(most - least, median(values.iter().copied())?)
}

/// `None` if there is nothing to divide by.
pub fn ratio(value: f64, base: f64) -> Option<f64> {
    (base > 0.0).then(|| value / base)
}

/// That which has the least value, the first of equals; `None` of nothing.
pub fn least_by<T>(all: impl IntoIterator<Item = T>, value: impl Fn(&T) -> f64) -> Option<T> {
    let order = |one: &T, other: &T| value(one).total_cmp(&value(other));
    all.into_iter().min_by(order)
}

/// `None` of no values; those that are not above zero don't count, as they have no logarithm.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let logarithms = values.into_iter().filter(|value| *value > 0.0).map(f64::ln);
    let (count, sum) = logarithms.fold((0_u32, 0.0), |(count, sum), it| (count + 1, sum + it));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0]), Some(5.0));
        assert_eq!(median([100.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_spread_is_a_part_of_the_median() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[5.0]), None);
        assert_eq!(spread(&[2.0, 2.0]), Some(0.0));
        assert_eq!(spread(&[9.0, 10.0, 14.0]), Some(0.5));
        assert_eq!(spread(&[0.0, 0.0]), None);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
    }

    #[test]
    fn the_least_is_found() {
        assert_eq!(least_by([0.0; 0], |it| *it), None);
        let all = [("a", 2.0), ("b", 1.0), ("c", 1.0), ("d", 3.0)];
        assert_eq!(least_by(all, |it| it.1), Some(("b", 1.0)));
    }

    #[test]
    fn the_geometric_mean_of_a_number_and_its_inverse_is_one() {
        assert_eq!(geometric_mean([]), None);
        assert_eq!(geometric_mean([0.0]), None);
        assert!((geometric_mean([4.0, 0.25]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geometric_mean([2.0, 8.0, 0.0]).unwrap() - 4.0).abs() < 1e-12);
    }
}
