"""The article's two programs, unchanged but for key and base URL, against its two regions."""

import pathlib
import subprocess
import sys

from conftest import ARTICLE_STATEMENT, ROOT, SMALL_MODEL, free_port, secret


def test_the_two_programs_get_their_answers_from_two_regions(honshu_with_model):
    honshu = honshu_with_model
    osaka, chicago = free_port(), free_port()
    config = (ROOT / "examples/osaka-chicago.toml").read_text()
    assert "127.0.0.1:8081" in config and "127.0.0.1:8082" in config
    config = config.replace("127.0.0.1:8081", f"127.0.0.1:{osaka}").replace("127.0.0.1:8082", f"127.0.0.1:{chicago}")
    # The programs set no limit, and in Japanese the small model talks until its context is full.
    honshu.start(config + "\n[engine]\ncontext_tokens = 1024\n", port=osaka)
    honshu.run("compartment", "create", "--name", "生成AI")
    honshu.run("policy", "create", "--compartment", "root", "--name", "keys",
               "--statement", ARTICLE_STATEMENT.format("生成AI"))
    regions = {"osaka": (osaka, "ap-osaka-1"), "chicago": (chicago, "us-chicago-1")}
    secrets = {}
    for name, (port, region) in regions.items():
        key = honshu.make_key("生成AI", name, allow=False, region=region)
        assert key["id"].startswith("ocid1.generativeaiapikey.oc1." + region)
        secrets[name] = secret(key)
    for name, (port, _) in regions.items():
        done = subprocess.run(
            [sys.executable, ROOT / f"examples/python/{name}.py"],
            env=honshu.environment(**{
                f"HONSHU_{name.upper()}_API_KEY": secrets[name],
                f"HONSHU_{name.upper()}_BASE_URL": f"http://127.0.0.1:{port}/20231130/actions/v1/",
                "PYTHONIOENCODING": "utf-8",
            }),
            capture_output=True, encoding="utf-8", timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("【プロンプト】\n日本列島で最も大きな島の名前は?\n\n【応答テキスト】\n"), done.stdout
        numbers = {line.split(": ")[0]: int(line.split(": ")[1]) for line in done.stdout.splitlines()[-3:]}
        assert numbers["入力トークン"] > 0 and numbers["出力トークン"] > 0
        assert numbers["合計トークン"] == numbers["入力トークン"] + numbers["出力トークン"]

    # A key of Osaka is nobody in Chicago, and a model of Osaka is not there.
    import httpx
    crossed = httpx.post(f"http://127.0.0.1:{chicago}/v1/responses", headers={"authorization": f"Bearer {secrets['osaka']}"},
                         json={"model": "xai.grok-4-1-fast-reasoning", "input": "hi"})
    assert crossed.status_code == 401
    absent = httpx.post(f"http://127.0.0.1:{chicago}/v1/responses", headers={"authorization": f"Bearer {secrets['chicago']}"},
                        json={"model": "openai.gpt-oss-120b", "input": "hi"})
    assert absent.status_code == 404 and SMALL_MODEL not in absent.text
    answered = httpx.post(f"http://127.0.0.1:{osaka}/v1/responses", headers={"authorization": f"Bearer {secrets['osaka']}"},
                          json={"model": "openai.gpt-oss-120b", "input": "hi", "max_output_tokens": 16}, timeout=120)
    assert answered.json()["model"] == SMALL_MODEL
