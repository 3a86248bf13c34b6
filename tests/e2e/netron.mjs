// Opens an .onnx file with Netron's own reader and prints what it sees: node netron.mjs FOLDER_OF_NETRON MODEL.onnx
import * as fs from 'node:fs';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, `${name}.js`)));
const onnx = await load('onnx');
const base = await load('base');
const protobuf = await load('protobuf');
const data = new Uint8Array(fs.readFileSync(file));
const context = {
    identifier: path.basename(file),
    stream: new base.BinaryStream(data),
    tags: async (type) => {
        if (type !== 'pb') {
            return new Map();
        }
        const reader = protobuf.BinaryReader.open(data);
        return reader.signature();
    },
    require: (id) => load(path.basename(id)),
    asset: async (name) => fs.readFileSync(path.join(folder, name), 'utf-8'),
    read: async (type) => (type === 'protobuf.binary' ? protobuf.BinaryReader.open(data) : null),
    peek: async () => null,
    open: async () => null,
    fetch: async () => null,
    error: () => {},
    set(type, value) {
        this.type = type;
        this.value = value;
        return type;
    },
};
const factory = new onnx.ModelFactory();
if (!await factory.match(context)) {
    throw new Error('Netron does not take it for an ONNX file.');
}
const model = await factory.open(context);
const graph = model.modules[0];
const seen = {
    format: model.format,
    nodes: graph.nodes.map((node) => [node.name, node.type.name]),
    inputs: graph.inputs.map((entry) => entry.name),
    outputs: graph.outputs.map((entry) => entry.name),
    metadata: Object.fromEntries((model.metadata || []).map((entry) => [entry.name, entry.value])),
};
process.stdout.write(JSON.stringify(seen));
