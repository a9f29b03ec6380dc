"""Profiles of hosts that do not exist, made from one of this host."""
import h5py


def invent(measured, path, hosts, links=(), **attributes):
    """Writes a profile at `path` whose hosts are this host's rows with other figures: a dict of columns for each,
    "host" among them, and "core_read_bytes_s" for a row of /rates; each is a machine of its own; links: (host_a, host_b, Gbit/s, microseconds of a byte[, of 2 KiB])."""
    with h5py.File(measured) as old, h5py.File(path, "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = attributes.get(name, value)
        row = old["hosts"][:1]
        rows = new.create_dataset("hosts", (len(hosts),), old["hosts"].dtype, chunks=True)
        for i, columns in enumerate(hosts):
            one = row.copy()
            one["machine"], one["together_read_bytes_s"] = i, columns.get("read_bytes_s", one["read_bytes_s"])
            for name, value in columns.items():
                if name != "core_read_bytes_s":
                    one[name] = value
            rows[i] = one[0]
        table = new.create_dataset("links", (len(links),), old["links"].dtype, chunks=True, maxshape=(None,))
        for i, (a, b, gbit, us, *short) in enumerate(links):
            table[i] = (a.encode(), b.encode(), 0, us * 1e-6, (short or [0])[0] * 1e-6, 1 << 20, gbit * 1e9 / 8, gbit * 1e9 / 8)
        for name in ("caches", "nodes", "devices"):
            new.create_dataset(name, (0,), old[name].dtype, chunks=True, maxshape=(None,))
        known = [x for x in hosts if "core_read_bytes_s" in x]
        table = new.create_dataset("rates", (len(known),), old["rates"].dtype, chunks=True, maxshape=(None,))
        for i, columns in enumerate(known):
            one = old["rates"][:1]
            one["host"], one["threads"], one["read_bytes_s"] = columns["host"], 1, columns["core_read_bytes_s"]
            table[i] = one[0]
    return path
