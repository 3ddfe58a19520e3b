# Shows what came of each suite without waylay, through one service and through three, and where that differs. Fails if
# it differs where it is not known to. Arguments: RESULTS KNOWN SUITE...
import sys

directory, known_file, *suites = sys.argv[1:]


def read(suite, count):
    try:
        with open(f"{directory}/{suite}-{count}") as file:
            lines = [line.split(" ", 1) for line in file.read().splitlines()]
    except FileNotFoundError:
        return {}
    return {name: result for result, name in lines}


with open(known_file) as file:
    known = [line.split()[0] for line in file if line.strip() and not line.startswith("#")]

unknown = 0
print(f"{'suite':<14} {'tests':>6} {'differ: one log':>16} {'three logs':>11}  of these known")
for suite in suites:
    plain, differ = read(suite, 0), []
    for count in 1, 3:
        through = read(suite, count)
        names = sorted(plain.keys() | through.keys())
        differ.append([(name, plain.get(name), through.get(name)) for name in names if plain.get(name) != through.get(name)])
    is_known = lambda name: any(name.endswith(part) for part in known)
    of_these = [len([name for name, *_ in one if is_known(name)]) for one in differ]
    print(f"{suite:<14} {len(plain):>6} {len(differ[0]):>16} {len(differ[1]):>11}  {of_these[0]}, {of_these[1]}")
    for count, one in zip((1, 3), differ):
        for name, before, after in one:
            mark = "known" if is_known(name) else "NEW"
            print(f"    {mark:<6} through {count}: {name}: {before} -> {after}")
            unknown += not is_known(name)
    unknown += not plain
sys.exit(1 if unknown else 0)
