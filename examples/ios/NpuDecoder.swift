// Greedy text from a Core ML package of `edgellm convert --target npu:apple`, on the Neural Engine.
// Keys and values are the model's state: nothing but ids, masks and logits crosses to the host.
// The package's functions (one token, guesses, prompts) share weights and that one state. For models
// of one part with one kind of rotary positions; what else there is stands in bundle.json.
// Written to Apple's documentation of iOS 18 (MLState, functions of a model); never compiled or run.

import CoreML
import Foundation

final class NpuDecoder {
  struct Shape {
    let rows: Int  // tokens of a step
    let past: Int  // slots that it sees, its own rows left out
    let function: String  // "rows1_past512_part0"
  }

  private let functions: [(shape: Shape, model: MLModel)]  // by rows
  private let state: MLState
  private let inverseFrequencies: [Float]  // model.rotations.full.inv_freq of bundle.json
  private(set) var tokens = 0

  /// `shapes`: graphs of bundle.json with the same n_past, one of them for one token.
  init(package: URL, shapes: [Shape], inverseFrequencies: [Float]) async throws {
    let compiled = try await MLModel.compileModel(at: package)
    functions = try shapes.sorted { $0.rows < $1.rows }.map { shape in
      let settings = MLModelConfiguration()
      settings.computeUnits = .cpuAndNeuralEngine
      settings.functionName = shape.function
      return (shape, try MLModel(contentsOf: compiled, configuration: settings))
    }
    guard let smallest = functions.first, smallest.shape.rows == 1 else {
      throw CocoaError(.featureUnsupported)
    }
    state = smallest.model.makeState()
    self.inverseFrequencies = inverseFrequencies
  }

  /// Up to `count` tokens after `prompt`; what does not fit is an error before any work.
  func generate(_ prompt: [Int32], count: Int, end: Set<Int32>) throws -> [Int32] {
    let capacity = functions[0].shape.past
    guard !prompt.isEmpty, count > 0, tokens + prompt.count + count - 1 <= capacity else {
      throw CocoaError(.featureUnsupported)  // as the SDK's ContextOverflowError: never cut off
    }
    var made: [Int32] = []
    var pending = prompt
    while made.count < count {
      let next = largest(try append(pending))
      made.append(next)
      if end.contains(next) { break }
      pending = [next]
    }
    return made
  }

  /// Logits after the last of `ids`, which go through in as large steps as there are.
  func append(_ ids: [Int32]) throws -> MLShapedArray<Float16> {
    var rest = ids[...]
    while true {
      let chosen = functions.first { $0.shape.rows >= rest.count } ?? functions[functions.count - 1]
      let step = rest.prefix(chosen.shape.rows)
      let logits = try run(Array(step), chosen.shape, chosen.model)
      rest = rest.dropFirst(step.count)
      if rest.isEmpty { return logits }
    }
  }

  private func run(_ ids: [Int32], _ shape: Shape, _ model: MLModel) throws -> MLShapedArray<Float16> {
    guard !ids.isEmpty, tokens + ids.count <= shape.past else {
      throw CocoaError(.featureUnsupported)
    }
    let padded = ids + Array(repeating: 0, count: shape.rows - ids.count)
    let (cosines, sines) = rotation(shape)
    let inputs = try MLDictionaryFeatureProvider(dictionary: [
      "ids": MLMultiArray(MLShapedArray<Int32>(scalars: padded, shape: [shape.rows])),
      "at": MLMultiArray(MLShapedArray<Int32>(scalars: [Int32(tokens)], shape: [1])),
      "mask": MLMultiArray(mask(shape)),
      "cos": MLMultiArray(cosines),
      "sin": MLMultiArray(sines),
    ])
    let result = try model.prediction(from: inputs, using: state)
    tokens += ids.count
    let logits = MLShapedArray<Float16>(result.featureValue(for: "logits")!.multiArrayValue!)
    return MLShapedArray(logits[ids.count - 1])
  }

  private func largest(_ logits: MLShapedArray<Float16>) -> Int32 {
    let values = logits.scalars
    return Int32(values.indices.max { values[$0] < values[$1] }!)
  }

  /// Row i sees the filled slots and its own rows up to itself.
  private func mask(_ shape: Shape) -> MLShapedArray<Float16> {
    let columns = shape.past + shape.rows
    var values = [Float16](repeating: -1e4, count: shape.rows * columns)
    for row in 0..<shape.rows {
      for column in 0..<tokens { values[row * columns + column] = 0 }
      for own in 0...row { values[row * columns + shape.past + own] = 0 }
    }
    return MLShapedArray(scalars: values, shape: [shape.rows, columns])
  }

  /// cos and sin of every position; sin is negative in the first half.
  private func rotation(_ shape: Shape) -> (MLShapedArray<Float16>, MLShapedArray<Float16>) {
    let half = inverseFrequencies.count
    var cosines: [Float16] = []
    var sines: [Float16] = []
    for row in 0..<shape.rows {
      let angles = inverseFrequencies.map { Double(Float(tokens + row) * $0) }
      cosines += (angles + angles).map { Float16(cos($0)) }
      sines += angles.map { Float16(-sin($0)) } + angles.map { Float16(sin($0)) }
    }
    let sizes = [shape.rows, 2 * half]
    return (MLShapedArray(scalars: cosines, shape: sizes), MLShapedArray(scalars: sines, shape: sizes))
  }
}
