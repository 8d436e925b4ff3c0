"""Writes smuggling.jsonl: byte strings that two HTTP readers might read differently.

Run:  python3 testdata/wire/smuggling.py

Each line has a name, the bytes (as text, one character per byte) and what RFC 9112, read
strictly, makes of them:
  refuse   one answer of 4xx or 5xx, then the connection ends; no handler runs
  one      one request for one handler, answered 200
  two      two plain requests, so that the test shows that it can count
  timeout  something is missing; 408, then the connection ends
"""

import json
import pathlib

POISON = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
cases = []


def case(name, expect, data):
    cases.append({"name": name, "expect": expect, "bytes": data.decode("latin-1")})


def refuse(name, data):
    case(name, "refuse", data + POISON)


def post(fields, body, line=b"POST /x HTTP/1.1", host=b"Host: a\r\n"):
    return line + b"\r\n" + host + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_BODY = b"5\r\nhello\r\n0\r\n\r\n"

# Content-Length
for value in [b"", b"+5", b"-5", b"-0", b"5 5", b"5,5", b"5, 5", b"5,6", b"5;", b"0x5", b"5.0", b"5e0", b"\"5\"", b"'5'", b"5_0", b"NaN",
              b"five", b"0 5", b"1 0", b"\xd9\xa5", b"5\x0b", b"\x0b5", b"5\x00", b"5\x0c", b"99999999999999999999", b"18446744073709551616",
              b"18446744073709551621", b"340282366920938463463374607431768211461", b"5\r", b"5\r\n 0", b"5\r\n\t0", b"(5)", b"5/5", b"5h"]:
    refuse(f"content-length {value!r}", post([b"Content-Length: " + value], b"hello"))
for value in [b" 5", b"5 ", b"5\t", b"\t5", b"05", b"0000000000000000005"]:
    case(f"content-length {value!r}", "one", post([b"Content-Length:" + value], b"hello"))
for fields in [[b"Content-Length: 5", b"Content-Length: 5"], [b"Content-Length: 5", b"Content-Length: 0"], [b"Content-Length: 0", b"Content-Length: 5"],
               [b"content-length: 5", b"CONTENT-LENGTH: 6"], [b"Content-Length: 5", b"X: y", b"Content-Length: 5"],
               [b"Content-Length: 5", b"Content-Length:"], [b"Content-Length: 5"] * 3]:
    refuse(f"content-lengths {b'; '.join(fields)!r}", post(fields, b"hello"))

# Transfer-Encoding
for value in [b"", b"identity", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked",
              b"chunkedx", b"chunked;q=1", b"\"chunked\"", b"'chunked'", b"chunked,", b",chunked", b"cow", b"chunk", b"chunked\x0b", b"\x0bchunked",
              b"chunked\x00", b"\x00chunked", b"deflate", b"compress", b"trailers", b"chun ked", b"[chunked]", b"chunked\x0c", b"\xa0chunked",
              b"chunked\xa0", b"chunked\r", b"chunked\r\n x", b"\r\n chunked", b"chunke\xc4\x91", b"x chunked", b"chunked x", b"chunked; a=b", b"gzip"]:
    refuse(f"transfer-encoding {value!r}", post([b"Transfer-Encoding: " + value], CHUNKED_BODY))
for value in [b"chunked", b"CHUNKED", b"Chunked", b"chunked ", b"  chunked", b"\tchunked\t"]:
    case(f"transfer-encoding {value!r}", "one", post([b"Transfer-Encoding:" + value], CHUNKED_BODY))
for second in [b"chunked", b"identity", b"gzip", b"x", b""]:
    refuse(f"transfer-encoding twice, then {second!r}", post([b"Transfer-Encoding: chunked", b"transfer-encoding: " + second], CHUNKED_BODY))
    refuse(f"transfer-encoding twice, first {second!r}", post([b"TRANSFER-ENCODING: " + second, b"Transfer-Encoding: chunked"], CHUNKED_BODY))
for name in [b"Transfer-Encoding ", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer_Encoding", b"Transfer-Encoding\t", b"Transfer\x00-Encoding",
             b"Transfer-Encoding\x00", b"\x0bTransfer-Encoding", b"Transfer-Encoding\n ", b"Transfer-Encoding\r\n ", b"Transfer Encoding", b"Transfer-Encoding\x0b",
             b"Transfer-Encoding\xa0", b"\xefTransfer-Encoding", b"Transfer-Encoding;", b"(Transfer-Encoding)", b"Transfer-Encoding\r"]:
    refuse(f"name {name!r}", post([name + b": chunked"], CHUNKED_BODY))
    refuse(f"name {name!r} with content-length", post([b"Content-Length: 5", name + b": chunked"], b"0\r\n\r\n"))
for prefix in [b"X: y\n", b"X: y\r", b"X: y\x00", b"X: y\x0b\x0c\n"]:
    refuse(f"hidden behind {prefix!r}", post([prefix + b"Transfer-Encoding: chunked"], b"0\r\n\r\n"))

# Both
for length in [0, 5, 6, 44, 100]:
    for te in [b"chunked", b"Chunked", b"identity", b"x", b"chunked "]:
        both = [b"Content-Length: %d" % length, b"Transfer-Encoding: " + te]
        refuse(f"both, {length} and {te!r}", post(both, b"0\r\n\r\n" + HIDDEN))
        refuse(f"both, {te!r} and {length}", post(both[::-1], b"0\r\n\r\n" + HIDDEN))

# HTTP/1.0
refuse("1.0 with chunked", post([b"Transfer-Encoding: chunked"], CHUNKED_BODY, line=b"POST /x HTTP/1.0"))
refuse("1.0 with both", post([b"Content-Length: 5", b"Transfer-Encoding: chunked"], CHUNKED_BODY, line=b"POST /x HTTP/1.0"))
refuse("1.0 with identity", post([b"Transfer-Encoding: identity"], b"", line=b"GET /x HTTP/1.0"))
refuse("1.0 without host", b"GET /x HTTP/1.0\r\n\r\n")
case("1.0 plain", "one", post([], b"", line=b"GET /x HTTP/1.0"))
case("1.0 with length", "one", post([b"Content-Length: 5"], b"hello", line=b"POST /x HTTP/1.0"))
case("1.0 keep-alive", "one", post([b"Connection: keep-alive"], b"", line=b"GET /x HTTP/1.0"))

# Chunks
for body in [b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhellox\r\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n",
             b" 5\r\nhello\r\n0\r\n\r\n", b"\t5\r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
             b"-5\r\nhello\r\n0\r\n\r\n", b"5_\r\nhello\r\n0\r\n\r\n", b"5g\r\nhello\r\n0\r\n\r\n", b"g\r\n", b"\r\nhello\r\n", b"\n", b";\r\nhello\r\n",
             b"ffffffffffffffff\r\nhello", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffffffffff\r\n", b"0000000000000000000005\r\nhello\r\n0\r\n\r\n",
             b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5;a\x00\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"5\x00\r\nhello\r\n0\r\n\r\n",
             b"5,\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n", b"0\r\n\n", b"0\r\nx: y\n\r\n", b"0\r\n x\r\n\r\n", b"0\r\nx y: z\r\n\r\n", b"0\r\nnocolon\r\n\r\n",
             b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nx: \x00\r\n\r\n",
             b"0\nx\r\n\r\n", b"00\n\r\n", b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\nx: " + b"y" * 9000 + b"\r\n\r\n", b"\x35\xa0\r\nhello\r\n0\r\n\r\n", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n"]:
    refuse(f"chunks {body[:24]!r}", post([b"Transfer-Encoding: chunked"], body))
for body in [b"0\r\n\r\n", b"000\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"005\r\nhello\r\n00\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n",
             b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n", b"1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n",
             b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n"]:
    case(f"chunks {body[:24]!r}", "one", post([b"Transfer-Encoding: chunked"], body))
case("chunks without end", "timeout", post([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n"))
case("length without end", "timeout", post([b"Content-Length: 50"], b"hello"))
case("head without end", "timeout", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Le")
case("request line without end", "timeout", b"POST /x HT")

# Bodies that look like requests
for method in [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"]:
    case(f"{method.decode()} with a request as body", "one", post([b"Content-Length: %d" % len(HIDDEN)], HIDDEN, line=method + b" /x HTTP/1.1"))
    case(f"{method.decode()} with a chunked request as body", "one", post([b"Transfer-Encoding: chunked"], b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n", line=method + b" /x HTTP/1.1"))

# Host
refuse("no host", b"GET /x HTTP/1.1\r\n\r\n")
refuse("no host, with length", b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
for value in [b"", b" ", b"a b", b"a/", b"a/?x=", b"a?x", b"a#x", b"a@b", b"u:p@a", b"a,b", b"a;b", b"a:", b"a:x", b"a:65536", b"a:-1", b":80", b"[::1", b"::1", b"[::1]x", b"[x]",
              b"a\\b", b"a\x00", b"a\x01", b"a\xe4", b"%61", b"a:80:80", b"http://a", b"<a>", b"a'", b"a\"", b"a|b", b"a\x7f", b"x" * 300]:
    refuse(f"host {value[:20]!r}", post([], b"", line=b"GET /x HTTP/1.1", host=b"Host: " + value + b"\r\n"))
for value in [b"a", b"A.example", b"127.0.0.1:80", b"[::1]:80", b"my_service:8080", b"localhost:0"]:
    case(f"host {value!r}", "one", post([], b"", line=b"GET /x HTTP/1.1", host=b"Host: " + value + b"\r\n"))
for hosts in [b"Host: a\r\nHost: a\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: b\r\n", b"Host: a\r\nX: y\r\nHOST: a\r\n", b"Host: a\r\nHost:\r\n", b"Host : a\r\n", b" Host: a\r\n", b"Host: a\r\n b\r\n", b"X-Host: a\r\n"]:
    refuse(f"hosts {hosts!r}", post([], b"", line=b"GET /x HTTP/1.1", host=hosts))
for target, host in [(b"http://b/x", b"a"), (b"http://a:80/x", b"a"), (b"http://a/x", b"a:80"), (b"http://u@a/x", b"a"), (b"http:///x", b"a"), (b"http://", b"a"), (b"http:/x", b"a"), (b"http:a", b"a"),
                     (b"ftp://a/x", b"a"), (b"a/x", b"a"), (b"a:80", b"a"), (b"x", b"a"), (b"*", b"a"), (b"?x", b"a"), (b"http://a b/x", b"a"), (b"http://a\\@b/x", b"b"), (b"http://a#@b/x", b"b"), (b"https://b", b"a")]:
    refuse(f"target {target!r} host {host!r}", post([], b"", line=b"GET " + target + b" HTTP/1.1", host=b"Host: " + host + b"\r\n"))
refuse("absolute target without host", b"GET http://a/x HTTP/1.1\r\n\r\n")
for target in [b"http://a/x", b"HTTP://A/x", b"https://a/x?y=http://b/", b"http://a", b"http://a?x", b"//b/x", b"/http://b/x", b"/x?Host:b", b"/%0d%0aHost:%20b", b"/x;y", b"/..;/x", b"/%2e%2e/x"]:
    case(f"target {target!r}", "one", post([], b"", line=b"GET " + target + b" HTTP/1.1"))
case("options asterisk", "one", post([], b"", line=b"OPTIONS * HTTP/1.1"))

# Request lines
for line in [b"GET  /x HTTP/1.1", b"GET /x  HTTP/1.1", b"GET\t/x HTTP/1.1", b"GET /x\tHTTP/1.1", b" GET /x HTTP/1.1", b"GET /x HTTP/1.1 ", b"GET /x", b"GET", b"GET /x http/1.1", b"GET /x HTTP/1.2",
             b"GET /x HTTP/2.0", b"GET /x HTTP/0.9", b"GET /x HTTP/1", b"GET /x HTTP/1.10", b"GET /x HTTP/01.1", b"GET /x HTTP/1.1x", b"GET /x HTTPS/1.1", b"GET /x HTTP 1.1", b"GET /x FTP/1.1",
             b"GET /x\x00 HTTP/1.1", b"GET /\x00x HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /x#y HTTP/1.1", b"GET /x\\y HTTP/1.1", b"GET /\"x HTTP/1.1", b"GET /<x> HTTP/1.1", b"GET /x y HTTP/1.1", b"GET /x\x01 HTTP/1.1",
             b"GET /\x7f HTTP/1.1", b"GE(T /x HTTP/1.1", b"GET: /x HTTP/1.1", b"G\x00ET /x HTTP/1.1", b"\xe4 /x HTTP/1.1", b"X" * 40 + b" /x HTTP/1.1", b"/x HTTP/1.1", b"CONNECT a:80 HTTP/1.1", b"CONNECT /x HTTP/1.1",
             b"GET /x\rHTTP/1.1", b"GET /x HTTP/1.1\r", b"GET\r/x HTTP/1.1", b"GET /x\x0bHTTP/1.1", b"PRI * HTTP/2.0", b"HTTP/1.1 200 OK", b"GET /" + b"x" * 9000 + b" HTTP/1.1"]:
    refuse(f"line {line[:32]!r}", post([], b"", line=line))
refuse("line ends in LF", b"GET /x HTTP/1.1\nHost: a\r\n\r\n")
refuse("all lines end in LF", b"GET /x HTTP/1.1\nHost: a\n\n")
refuse("field ends in LF", b"GET /x HTTP/1.1\r\nHost: a\n\r\n")
refuse("last line ends in LF", b"GET /x HTTP/1.1\r\nHost: a\r\n\n")
refuse("lines end in CR CR LF", b"GET /x HTTP/1.1\r\r\nHost: a\r\r\n\r\r\n")
refuse("lines end in LF CR", b"GET /x HTTP/1.1\n\rHost: a\n\r\n\r")
refuse("three empty lines first", b"\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
refuse("empty LF line first", b"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
refuse("empty line with a space first", b" \r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
case("one empty line first", "one", b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
case("empty line after a body", "one", post([b"Content-Length: 5"], b"hello\r\n"))
refuse("preface of another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
refuse("preface with a fault", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n")

# Fields
for field in [b"X", b"X y", b": y", b" : y", b"X : y", b"X\t: y", b"X Y: z", b"X(: y", b"X{}: y", b"X\"Y\": z", b"X/Y: z", b"X@Y: z", b"X[Y]: z", b"X=Y: z", b"\xe4: y", b"X_Forwarded_For: 1", b"Content_Length: 5",
              b"Host_: b", b"_: y", b"X: y\r\n z", b"X: y\r\n\tz", b"X:\r\n y", b"X: y\rZ: 1", b"X: y\nZ: 1", b"X: y\x00z", b"X\x00: y", b"X: y\r\r"]:
    refuse(f"field {field!r}", post([field, b"Content-Length: 0"], b""))
for control in [*range(1, 9), 11, 12, *range(14, 32), 127]:
    refuse(f"control {control:#04x} in a value", post([b"X: y" + bytes([control]) + b"z"], b""))
for field in [b"X:", b"X:y", b"X: \ty\t ", b"X: \xe4\xb8\xad", b"X!#$%&'*+-.^`|~9: y", b"x-forwarded-for: 1", b"Content-Lengths: 5", b"X: a:b:c"]:
    case(f"field {field!r}", "one", post([field], b""))
refuse("a hundred and one fields", post([b"X: y"] * 100, b""))
case("a hundred fields", "one", post([b"X: y"] * 99, b""))
refuse("a head of 40 kB", post([b"X: " + b"y" * 10000] * 4, b""))
refuse("a field of 40 kB", post([b"X: " + b"y" * 40000], b""))

# Upgrade and Expect
for field in [b"Upgrade: websocket", b"Upgrade: h2c", b"upgrade: x"]:
    refuse(f"{field.decode()} with a body", post([b"Connection: upgrade", field, b"Content-Length: 5"], b"hello"))
    refuse(f"{field.decode()} with chunks", post([b"Connection: upgrade", field, b"Transfer-Encoding: chunked"], CHUNKED_BODY))
    case(f"{field.decode()} without a body", "one", post([b"Connection: upgrade", field], b"", line=b"GET /x HTTP/1.1"))
for value in [b"", b"100", b"100-continue, x", b"x", b"200-ok"]:
    refuse(f"expect {value!r}", post([b"Expect: " + value, b"Content-Length: 5"], b"hello"))

# Two honest requests
case("two requests", "two", post([], b"", line=b"GET /x HTTP/1.1") * 2)
case("two requests with bodies", "two", post([b"Content-Length: 5"], b"hello") + post([b"Transfer-Encoding: chunked"], CHUNKED_BODY))

names = [c["name"] for c in cases]
assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]
path = pathlib.Path(__file__).with_suffix(".jsonl")
path.write_text("".join(json.dumps(c) + "\n" for c in cases))
print(len(cases), "cases")
