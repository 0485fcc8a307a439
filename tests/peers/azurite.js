// Azurite over TLS on a free port of loopback, and Microsoft's own client of it, driven line by line.
//
//   NODE_PATH=MODULES NODE_EXTRA_CA_CERTS=CA node azurite.js CERT KEY
//
// Prints {"url","account"} when it serves; then each line of stdin is a command {"op",…}, answered by one line: {} or
// {"error"}. It ends, and Azurite with it, when stdin ends.
"use strict";

const { spawn } = require("node:child_process");
const readline = require("node:readline");
const {
    BlobServiceClient,
    ContainerSASPermissions,
    StorageSharedKeyCredential,
    generateBlobSASQueryParameters,
} = require("@azure/storage-blob");

const ACCOUNT = "koodes";
const KEY = Buffer.from("a key of nobody's account").toString("base64");
const [cert, key] = process.argv.slice(2);

function start() {
    const main = require.resolve("azurite/dist/src/blob/main.js");
    const options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--silent"];
    const tls = ["--cert", cert, "--key", key];
    const rest = ["--disableTelemetry", "--disableProductStyleUrl", "--skipApiVersionCheck"];
    const azurite = spawn(process.execPath, [main, ...options, ...tls, ...rest], {
        env: { ...process.env, AZURITE_ACCOUNTS: `${ACCOUNT}:${KEY}` },
        stdio: ["ignore", "pipe", "inherit"],
    });
    return new Promise((resolve, reject) => {
        let said = "";
        azurite.stdout.on("data", (text) => {
            said += text;
            const url = /successfully listens on (https:\S+)/.exec(said);
            if (url) resolve({ azurite, url: `${url[1]}/${ACCOUNT}` });
        });
        azurite.on("exit", (code) => reject(new Error(`Azurite ended (${code}): ${said}`)));
    });
}

// What a test can ask for; each answers with the line's object.
function verbs(service, credential) {
    const blob = (command) => service.getContainerClient(command.container).getBlockBlobClient(command.name);
    return {
        // With "public", everybody may read its blobs; otherwise only who has a signature.
        async container({ container, access }) {
            await service.getContainerClient(container).create(access ? { access } : {});
            return {};
        },
        // In blocks of a MiB, as uploaders do: no Content-MD5 is stored then.
        async put(command) {
            const options = { blockSize: 1 << 20, maxSingleShotSize: 1 << 20 };
            const headers = { blobHTTPHeaders: { blobContentType: command.content_type } };
            await blob(command).uploadFile(command.file, { ...options, ...headers });
            return {};
        },
        async etag(command) {
            return { etag: (await blob(command).getProperties()).etag };
        },
        // A signature for a container, as a query string: from so many seconds on, for so many, good for what `permissions`
        // says. With an account named, for a host of that account and key instead of Azurite.
        async sign({ container, for_s, from_s = -60, permissions = "r", account, account_key }) {
            const now = Date.now();
            const sas = generateBlobSASQueryParameters(
                {
                    containerName: container,
                    permissions: ContainerSASPermissions.parse(permissions),
                    startsOn: new Date(now + from_s * 1000),
                    expiresOn: new Date(now + for_s * 1000),
                },
                account ? new StorageSharedKeyCredential(account, account_key) : credential,
            );
            return { sas: sas.toString() };
        },
    };
}

async function main() {
    const { azurite, url } = await start();
    azurite.removeAllListeners("exit");
    const credential = new StorageSharedKeyCredential(ACCOUNT, KEY);
    const service = new BlobServiceClient(url, credential);
    const known = verbs(service, credential);
    console.log(JSON.stringify({ url, account: ACCOUNT }));
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const command = JSON.parse(line);
        const answer = known[command.op](command).catch((error) => ({ error: `${command.op}: ${error.message}` }));
        console.log(JSON.stringify(await answer));
    }
    azurite.kill();
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
