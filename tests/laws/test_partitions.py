"""Every partition has one home, and every site knows all of them."""

from cluster import partitions


def test_one_site_is_home_of_all() -> None:
    placed = partitions.placed("north", ("north",))
    assert placed.homes == ("directory", "mail-north-1", "queue-north") and placed.copies == ()


def test_several_sites_agree_on_every_home() -> None:
    sites = ("pune", "mumbai", "dr")
    placed = [partitions.placed(site, sites) for site in sites]
    assert placed[0].home_of == placed[1].home_of == placed[2].home_of
    assert placed[1].homes == ("mail-mumbai-1", "queue-mumbai") and placed[1].home_of["directory"] == "pune"
    for site, here in zip(sites, placed, strict=True):
        assert {name for name, home in here.home_of.items() if home == site} == set(here.homes)
        assert set(here.homes) | set(here.copies) == set(here.home_of) and len(here.home_of) == 7


def test_a_spool_has_a_name_of_its_own() -> None:
    assert partitions.is_spool(partitions.spool("pune")) and not partitions.is_queue(partitions.spool("pune"))
    assert not partitions.is_spool(partitions.queue("spool"))
