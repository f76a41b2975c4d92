// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Which models there are, and by which names people know them
/// @notice A model id is the keccak-256 of the model's canonical manifest, so nobody can make an id mean other files.
/// An alias is a name and a label with an at sign between. A label is a version, which never moves, or a channel such
/// as `latest`, which its publisher points elsewhere. A name belongs to whoever used it first, for good. Holds no
/// money; nobody, its deployer included, has a say over what others publish.
/// @dev Assumes:
/// safety: nothing; no other contract is called, and none reads this one.
/// liveness: blocks keep coming.
interface IModelRegistry {
    // ------------------------------------------------------------------------------------------------ events

    /// @notice Someone says where a model's manifest and files are. What is there is checked against the id.
    /// @param modelId Keccak-256 of the manifest.
    /// @param publisher Who says so.
    /// @param uri Where they are; kept in this event only.
    event ModelPublished(bytes32 indexed modelId, address indexed publisher, string uri);

    /// @notice A name has its owner now.
    /// @param publisher The owner, for good.
    /// @param name The name.
    event NameTaken(address indexed publisher, string name);

    /// @notice A version of a name means a model, for good.
    /// @param modelId The model.
    /// @param publisher Owner of the name.
    /// @param name Name, before the at sign.
    /// @param label Version, after it.
    event VersionReleased(bytes32 indexed modelId, address indexed publisher, string name, string label);

    /// @notice A channel of a name means a model, until its next such event.
    /// @param modelId The model.
    /// @param publisher Owner of the name.
    /// @param name Name, before the at sign.
    /// @param label Channel, after it.
    event ChannelPointed(bytes32 indexed modelId, address indexed publisher, string name, string label);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice No manifest hashes to 0.
    error ModelRegistry_ZeroModel();
    /// @notice Only a published model gets an alias.
    error ModelRegistry_NotPublished(bytes32 got);
    /// @notice A place is `limit` bytes long at most.
    error ModelRegistry_UriTooLong(uint256 got, uint256 limit);
    /// @notice Names and labels have 1 to `limit` bytes.
    error ModelRegistry_WrongLength(uint256 got, uint256 limit);
    /// @notice Names and labels are of a–z, 0–9, `.`, `_` and `-`; the byte at index `limit` is another.
    error ModelRegistry_WrongByte(bytes1 got, uint256 limit);
    /// @notice The name is another publisher's, `limit`.
    error ModelRegistry_NotPublisher(address got, address limit);
    /// @notice The label is a version already; it means `limit` for good.
    error ModelRegistry_VersionStands(bytes32 got, bytes32 limit);
    /// @notice The label is a channel already, and means `limit` now; a channel never becomes a version.
    error ModelRegistry_ChannelStands(bytes32 got, bytes32 limit);

    // --------------------------------------------------------------------------------------------- functions

    /// @notice Says where a model is. Anyone may, for any model, as often as they like.
    /// @param modelId Keccak-256 of the manifest, not 0.
    /// @param uri Where manifest and files are, at most 512 bytes. May be empty: known to exist, not to be had.
    function publish(bytes32 modelId, string calldata uri) external;

    /// @notice Lets a version mean a model, for good. Takes the name for the caller when nobody has it.
    /// @param name At most 64 bytes.
    /// @param version Label that has no meaning yet; at most 64 bytes.
    /// @param modelId A published model.
    function release(string calldata name, string calldata version, bytes32 modelId) external;

    /// @notice Lets a channel mean a model from now on. Takes the name for the caller when nobody has it.
    /// @param name At most 64 bytes.
    /// @param channel Label that is no version; at most 64 bytes.
    /// @param modelId A published model.
    function point(string calldata name, string calldata channel, bytes32 modelId) external;

    // ------------------------------------------------------------------------------------------------- views

    /// @notice Whether anyone ever published a model.
    /// @param modelId Any value.
    /// @return True once someone did.
    function isPublished(bytes32 modelId) external view returns (bool);

    /// @notice Whose a name is.
    /// @param name Any text.
    /// @return Its publisher. 0: nobody's yet.
    function publisherOf(string calldata name) external view returns (address);

    /// @notice What an alias means now.
    /// @param name Any text.
    /// @param label Any text.
    /// @return modelId The model. 0: the alias means nothing.
    /// @return isFixed Whether it is a version, which never moves.
    function resolve(string calldata name, string calldata label)
        external
        view
        returns (bytes32 modelId, bool isFixed);
}
