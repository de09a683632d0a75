// Greedy text from a Core ML package of `edgellm convert --target npu:apple`, on the Neural Engine.
// Keys and values are the model's state: nothing but ids, masks and logits crosses to the host.
// Written to Apple's documentation of iOS 18 (MLState, functions of a model); never compiled or run.

import CoreML
import Foundation

final class NpuDecoder {
  struct Shape {
    let rows: Int  // tokens of a step
    let past: Int  // slots that it sees, its own rows left out
    let function: String  // "rows1_past512_part0"
  }

  private let model: MLModel
  private let state: MLState
  private let shape: Shape
  private let inverseFrequencies: [Float]  // model.rotations.full.inv_freq of bundle.json
  private(set) var tokens = 0

  init(package: URL, shape: Shape, inverseFrequencies: [Float]) async throws {
    let settings = MLModelConfiguration()
    settings.computeUnits = .cpuAndNeuralEngine
    settings.functionName = shape.function
    let compiled = try await MLModel.compileModel(at: package)
    model = try MLModel(contentsOf: compiled, configuration: settings)
    state = model.makeState()
    self.shape = shape
    self.inverseFrequencies = inverseFrequencies
  }

  /// Logits of the last of `ids`, at most `shape.rows` of them. Throws before anything is lost.
  func step(_ ids: [Int32]) throws -> MLShapedArray<Float16> {
    guard !ids.isEmpty, ids.count <= shape.rows, tokens + ids.count <= shape.past else {
      throw CocoaError(.featureUnsupported)  // as the SDK's ContextOverflowError: never cut off
    }
    let padded = ids + Array(repeating: 0, count: shape.rows - ids.count)
    let (cosines, sines) = rotation()
    let inputs = try MLDictionaryFeatureProvider(dictionary: [
      "ids": MLMultiArray(MLShapedArray<Int32>(scalars: padded, shape: [shape.rows])),
      "at": MLMultiArray(MLShapedArray<Int32>(scalars: [Int32(tokens)], shape: [1])),
      "mask": MLMultiArray(mask()),
      "cos": MLMultiArray(cosines),
      "sin": MLMultiArray(sines),
    ])
    let result = try model.prediction(from: inputs, using: state)
    tokens += ids.count
    let logits = MLShapedArray<Float16>(result.featureValue(for: "logits")!.multiArrayValue!)
    return MLShapedArray(logits[ids.count - 1])
  }

  /// Row i sees the filled slots and its own rows up to itself.
  private func mask() -> MLShapedArray<Float16> {
    let columns = shape.past + shape.rows
    var values = [Float16](repeating: -1e4, count: shape.rows * columns)
    for row in 0..<shape.rows {
      for column in 0..<tokens { values[row * columns + column] = 0 }
      for own in 0...row { values[row * columns + shape.past + own] = 0 }
    }
    return MLShapedArray(scalars: values, shape: [shape.rows, columns])
  }

  /// cos and sin of every position; sin is negative in the first half.
  private func rotation() -> (MLShapedArray<Float16>, MLShapedArray<Float16>) {
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
