"""URLs that lead inside, in every spelling, and what name servers say of the names among them."""

import socket

PUBLIC = "93.184.216.34"

# What a host may be written as to be the machine itself, or one beside it.
HOSTS = """
127.0.0.1 127.0.0.2 127.1 127.0.1 127.255.255.254 0.0.0.0 0 0.0 00.0.0.0 2130706433 0x7f000001
0x7f.0.0.1 0x7f.1 0177.0.0.1 017700000001 0177.0.0.01 127.0x0.0.1 0x7F.0x0.0x0.0x1 127.0.0.1.
127.000.000.001 3232235521 0300.0250.0.1 0xA9FEA9FE 2852039166 0251.0376.0251.0376 169.254.43518
169.254.169.254 169.254.0.1 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 100.64.0.1
100.127.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.254 192.168.0.1 192.168.255.255
198.18.0.1 198.19.255.255 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 224.0.0.1 239.255.255.250
240.0.0.1 255.255.255.255 0.1.2.3
[::1] [::] [0:0:0:0:0:0:0:1] [0000::0001] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:a9fe:a9fe]
[::ffff:0:127.0.0.1] [::127.0.0.1] [::ffff:10.0.0.1] [64:ff9b::7f00:1] [64:ff9b::169.254.169.254]
[64:ff9b:1::a00:1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2002:0a00:0001::1] [2001:0:7f00:1::]
[2001::1] [fe80::1] [fe80::1%25lo] [fe80::1%25eth0] [fc00::1] [fd00::1] [fd00:ec2::254] [fec0::1]
[ff02::1] [ff05::1:3] [100::1] [2001:db8::1] [3fff::1] [5f00::1] [2001:10::1] [2001:20::1]
[2600::5efe:127.0.0.1] [2600::200:5efe:10.0.0.1] [4000::1] [::1.] [::ffff:127.0.0.1]:80@x
""".split()  # noqa: SIM905 - a table of words
# Names, and what a hostile name server, or an honest one, says of them.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "LOCALHOST": ["127.0.0.1"],
    "localtest.me": ["127.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data.ec2.internal": ["169.254.169.254"],
    "kubernetes.default.svc": ["10.96.0.1"],
    "postgres": ["172.18.0.2"],
    "host.docker.internal": ["192.168.65.2"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "mixed-six.example": [PUBLIC, "::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat.example": ["64:ff9b::7f00:1"],
    "six-to-four.example": ["2002:7f00:1::"],
    "zone.example": ["fe80::1%lo"],
    "unspecified.example": ["0.0.0.0"],
    "multicast.example": ["224.0.0.1"],
    "nothing.example": [],
    "xn--fake-ip.example": ["127.0.0.1"],
}
# Texts that parsers read in different ways.
ODD = """
http://127.0.0.1:{p}@{public}/ http://{public}@127.0.0.1:{p}/ http://{public}:{p}@localhost:{p}/
http://{public}\\@127.0.0.1:{p}/ http://{public}#@127.0.0.1:{p}/ http://127.0.0.1:{p}#{public}
http:///127.0.0.1:{p}/ http:/127.0.0.1:{p}/ http:127.0.0.1:{p} //127.0.0.1:{p}/ http://127.0.0.1%2f:{p}/
http://%31%32%37.0.0.1:{p}/ http://%6cocalhost:{p}/ http://localhost%00.example:{p}/
http://①②⑦.⓪.⓪.①:{p}/ http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{p}/ http://127。0。0。1:{p}/ http://[::1]:{p}@{public}/
http://localhost\\.example:{p}/ ftp://127.0.0.1:{p}/ file:///etc/passwd gopher://127.0.0.1:{p}/_x
dict://127.0.0.1:{p}/ ws://127.0.0.1:{p}/ unix:///var/run/docker.sock jar:http://127.0.0.1:{p}!/
""".split()  # noqa: SIM905


def hostile_urls(port):
    urls = [f"http://{host}:{port}/" for host in HOSTS]
    urls += [f"http://{name}:{port}/" for name in NAMES]
    urls += [text.format(p=port, public=PUBLIC) for text in ODD]
    return urls


async def said_by_name_servers(host, _):
    """Answer like a name server, and like the C library for what looks like an address."""
    if (found := NAMES.get(host)) is not None:
        return found
    try:
        return [str(target[0]) for *_, target in socket.getaddrinfo(host, 0, type=1)]
    except UnicodeError as error:
        raise OSError from error
