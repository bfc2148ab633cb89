//! "Did you mean": the name that differs least.

/// Longer names are not compared: nobody misspells them, and comparing costs by the square of the length.
const LONGEST: usize = 80;

/// The candidate that differs least from `name`, letter case aside, if it differs by no more than about a third.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let most = (name.len() / 3).max(1);
    candidates
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(&name, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out, changed, or swapped with their neighbour.
fn distance(one: &[char], another: &[char]) -> usize {
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=another.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = Vec::with_capacity(back.len());
        current.push(row + 1);
        for (column, other) in another.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut least = (at(&back, column) + usize::from(letter != other))
                .min(at(&back, column + 1) + 1)
                .min(at(&current, column) + 1);
            let swapped =
                row > 0 && column > 0 && one.get(row - 1) == Some(other) && another.get(column - 1) == Some(letter);
            if swapped {
                least = least.min(at(&two_back, column - 1) + 1);
            }
            current.push(least);
        }
        two_back = std::mem::replace(&mut back, current);
    }
    back.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let names = ["flux/dev", "flux-realism", "guidance_scale", "seed"];
        let near = |name| nearest(name, names.into_iter());
        assert_eq!(near("flux/dve"), Some("flux/dev"));
        assert_eq!(near("FLUX-REALISN"), Some("flux-realism"));
        assert_eq!(near("guidence_scale"), Some("guidance_scale"));
        assert_eq!(near("sead"), Some("seed"));
    }

    #[test]
    fn what_is_far_from_everything_has_no_neighbour() {
        let near = |name| nearest(name, ["flux/dev", "seed"].into_iter());
        assert_eq!(near("gpt-4o"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"seed".repeat(100_000)), None);
    }
}
